package listen

import (
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soOriginalDst is SO_ORIGINAL_DST of netfilter, for IPv4 at the level of IP and for IPv6 at that of IPv6 (there called
// IP6T_SO_ORIGINAL_DST).
const soOriginalDst = 80

// setTransparent lets a listening socket accept connections to addresses that are not this machine's (TPROXY). Failing is
// no error: without the privilege only REDIRECT works.
func setTransparent(fd int, network string) {
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	if network == "tcp6" {
		_ = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
}

// originalDestination returns where a redirected connection wanted to go. Behind REDIRECT and DNAT netfilter remembers it;
// behind TPROXY it is the local address itself, which is no address of this machine then. It is not valid for a connection
// that was made to the listener.
func originalDestination(c net.Conn, local netip.AddrPort) netip.AddrPort {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return netip.AddrPort{}
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return netip.AddrPort{}
	}
	var dst netip.AddrPort
	if err := raw.Control(func(fd uintptr) { dst = conntrackDst(int(fd), local.Addr().Is4()) }); err != nil {
		return netip.AddrPort{}
	}
	if dst.IsValid() && dst != local {
		return dst
	}
	if foreign(local.Addr()) {
		return local
	}
	return netip.AddrPort{}
}

// conntrackDst asks netfilter for the destination before translation; not valid where it knows none.
func conntrackDst(fd int, v4 bool) netip.AddrPort {
	if v4 {
		var sa unix.RawSockaddrInet4
		if !getsockopt(fd, unix.SOL_IP, unsafe.Pointer(&sa), unsafe.Sizeof(sa)) || sa.Family != unix.AF_INET { //nolint:gosec // the kernel's own layout
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(sa.Port))
	}
	var sa unix.RawSockaddrInet6
	if !getsockopt(fd, unix.SOL_IPV6, unsafe.Pointer(&sa), unsafe.Sizeof(sa)) || sa.Family != unix.AF_INET6 { //nolint:gosec // the kernel's own layout
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port(sa.Port))
}

func getsockopt(fd, level int, to unsafe.Pointer, size uintptr) bool {
	n := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soOriginalDst, uintptr(to), uintptr(unsafe.Pointer(&n)), 0) //nolint:gosec // no other way to this option
	return errno == 0 && uintptr(n) == size
}

// port turns a port in network byte order, as the kernel left it in memory, into a number.
func port(p uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&p)) //nolint:gosec // two bytes of a local variable
	return uint16(b[0])<<8 | uint16(b[1])
}

// foreign says whether an address is none of this machine's.
func foreign(a netip.Addr) bool {
	if a.IsLoopback() {
		return false
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, ia := range addrs {
		if n, ok := ia.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a.WithZone("") {
				return false
			}
		}
	}
	return true
}
