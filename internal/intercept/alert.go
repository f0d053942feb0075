package intercept

import (
	"crypto/tls"
	"errors"
	"net"
	"reflect"
)

// certificateAlerts are the alerts that speak of a certificate (RFC 8446, 6.2), without certificate_required, which a
// client has no use for.
var certificateAlerts = map[uint8]string{
	42: "bad_certificate", 43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired",
	46: "certificate_unknown", 48: "unknown_ca",
}

// alertBadRecordMAC is what crypto/tls answers a record with that it cannot decrypt.
const alertBadRecordMAC = 20

// certificateAlert returns the name of the alert by which the peer refused a certificate, where that is why a handshake
// failed.
func certificateAlert(err error) (name string, ok bool) {
	code, ok := alertOf(err, "remote error")
	if !ok {
		return "", false
	}
	name, ok = certificateAlerts[code]
	return name, ok
}

// alertOf returns the alert that an error of crypto/tls is about: one of the peer's ("remote error"), or of our own ("local
// error"). The library's type for them is not exported, a number.
func alertOf(err error, op string) (code uint8, ok bool) {
	var e *net.OpError
	if !errors.As(err, &e) || e.Op != op || e.Err == nil {
		return 0, false
	}
	if v := reflect.ValueOf(e.Err); v.Kind() == reflect.Uint8 {
		return uint8(v.Uint()), true
	}
	var alert tls.AlertError
	if errors.As(e.Err, &alert) {
		return uint8(alert), true
	}
	return 0, false
}

// The bytes of an alert that is not encrypted (RFC 8446, 5.1 and 6): a record's head, level and description.
const (
	recordAlert = 21
	alertRecord = recordHead + 2
	alertFatal  = 2
)

// alertWatch is a client's connection while it makes its handshake. It keeps how the last record began: OpenSSL refuses a
// certificate of TLS 1.3 by an alert that is not encrypted, as it has not taken its handshake keys into use then. Where it should
// be encrypted, crypto/tls has no more to say of it than that it cannot be decrypted.
type alertWatch struct {
	net.Conn
	done bool              // the handshake is over; set before the connection is used on
	last [alertRecord]byte // what there is of the last record's beginning
	have int               // bytes of it
	left int               // bytes of the record that are to come behind those
}

// NetConn returns the connection below.
func (w *alertWatch) NetConn() net.Conn { return w.Conn }

// Read implements net.Conn.
func (w *alertWatch) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if !w.done {
		w.follow(p[:n])
	}
	return n, err
}

// follow goes along the records of what was read.
func (w *alertWatch) follow(b []byte) {
	for len(b) > 0 {
		if w.have >= recordHead && w.left == 0 {
			w.have = 0 // the record is whole, and this is the next one's
		}
		if w.have < recordHead {
			n := copy(w.last[w.have:recordHead], b)
			w.have, b = w.have+n, b[n:]
			if w.have == recordHead {
				w.left = int(w.last[3])<<8 | int(w.last[4])
			}
			continue
		}
		n := min(len(b), w.left)
		w.have += copy(w.last[w.have:], b[:n])
		w.left, b = w.left-n, b[n:]
	}
}

// meant returns the client's alert in the place of an error that says no more than that its last record could not be
// decrypted, where that was an alert in the clear; any other error as it is. Nobody has to be believed for it: such an alert ends
// the handshake, and those of TLS 1.2 about a certificate are in the clear, too.
func (w *alertWatch) meant(err error) error {
	code, ok := alertOf(err, "local error")
	whole := w.have == alertRecord && w.left == 0
	if !ok || code != alertBadRecordMAC || !whole || w.last[0] != recordAlert || w.last[3] != 0 || w.last[4] != 2 || w.last[5] != alertFatal {
		return err
	}
	return &net.OpError{Op: "remote error", Err: tls.AlertError(w.last[6])}
}
