package redirect

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableOwner has the kernel remove the table when the socket that made it is closed, however its process ended
// (NFT_TABLE_F_OWNER, Linux 5.12).
const tableOwner = 0x2

// open returns a connection to nftables that lasts, and the socket below it.
func open() (*nftables.Conn, *netlink.Conn, error) {
	var socket *netlink.Conn
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(n *netlink.Conn) error {
		socket = n
		return nil
	}))
	if err != nil {
		return nil, nil, explain(err, "nftables")
	}
	return c, socket, nil
}

// own makes our table, empty and owned by the socket, in place of the old one, which may be nil. The library makes no tables
// with flags, so that this is a transaction of its own; in between nothing is taken over, which is what happens to traffic
// without an owner anyway.
func own(socket *netlink.Conn, old *nftables.Table) error {
	name := netlink.Attribute{Type: unix.NFTA_TABLE_NAME, Data: []byte(Table + "\x00")}
	var messages []netlink.Message
	if old != nil {
		messages = append(messages, tableMessage(unix.NFT_MSG_DELTABLE, 0, name))
	}
	messages = append(messages, tableMessage(unix.NFT_MSG_NEWTABLE, netlink.Create, name,
		netlink.Attribute{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, tableOwner)}))
	answers := len(messages)
	messages = append([]netlink.Message{batchMessage(unix.NFNL_MSG_BATCH_BEGIN)}, messages...)
	messages = append(messages, batchMessage(unix.NFNL_MSG_BATCH_END))
	if _, err := socket.SendMessages(messages); err != nil {
		return explain(err, "the rules")
	}
	var errs []error
	for range answers {
		if _, err := socket.Receive(); err != nil {
			errs = append(errs, err)
			break // one error undoes the batch
		}
	}
	return explain(errors.Join(errs...), "the rules")
}

// tableMessage is a message about a table of the family inet (struct nfgenmsg, and attributes).
func tableMessage(kind uint16, flags netlink.HeaderFlags, attributes ...netlink.Attribute) netlink.Message {
	data, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		panic("redirect: attributes of a fixed form cannot be written: " + err.Error())
	}
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | netlink.Acknowledge | flags,
		},
		Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, data...),
	}
}

// batchMessage begins or ends a transaction.
func batchMessage(kind uint16) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
	}
}

// isOwned says whether a table goes with its owner. The library reads the flags in this machine's byte order, though they
// come in the network's.
func isOwned(t *nftables.Table) bool {
	return (t.Flags|bits.ReverseBytes32(t.Flags))&tableOwner != 0
}
