// Package ports finds addresses for peers of the tests that cannot choose one themselves.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

// Below what the kernel gives out by itself, to clients and to listeners at port 0: a port from there may be taken between
// its being found and its being used, as several tests run at the same time.
const first = 15000

// Free returns a loopback address, 127.0.0.1:port, that nobody listens on and that the kernel gives to nobody.
func Free() (string, error) {
	var last error
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(first+rand.IntN(end()-first)))
		if err != nil {
			last = err
			continue
		}
		return l.Addr().String(), l.Close()
	}
	return "", fmt.Errorf("no free port: %w", last)
}

// end is where the kernel's own ports begin.
func end() int {
	var begin int
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &begin)
	}
	if err != nil || begin <= first {
		return 1 << 15
	}
	return begin
}
