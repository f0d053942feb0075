package websocket

import "testing"

func TestOfferKeepsWhatCanBeRead(t *testing.T) {
	for in, want := range map[string]string{
		"":                   "",
		"permessage-deflate": "permessage-deflate",
		"Permessage-Deflate; Client_Max_Window_Bits":                                                     "permessage-deflate; client_max_window_bits",
		"x-webkit-deflate-frame, permessage-deflate;server_max_window_bits=\"9\"":                        "permessage-deflate; server_max_window_bits=9",
		"permessage-bzip2; level=9":                                                                      "",
		"permessage-deflate; client_no_context_takeover; server_no_context_takeover, permessage-deflate": "permessage-deflate; client_no_context_takeover; server_no_context_takeover, permessage-deflate",
		"permessage-deflate; server_max_window_bits=16":                                                  "",
		"permessage-deflate; server_max_window_bits":                                                     "",
		"permessage-deflate; server_max_window_bits=08":                                                  "",
		"permessage-deflate; mystery":                                                                    "",
		"permessage-deflate; client_no_context_takeover=1":                                               "",
		"permessage-deflate; server_max_window_bits=9; server_max_window_bits=10":                        "",
		"foo; a=\"x, permessage-deflate; y=\"":                                                           "",
		"permessage-deflate=1":                                                                           "",
		", permessage-deflate ,":                                                                         "permessage-deflate",
		"bbf-usp-protocol; eid=\"1\", permessage-deflate; client_max_window_bits=15":                     "permessage-deflate; client_max_window_bits=15",
	} {
		if got := Offer([]string{in}); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	if got := Offer([]string{"foo", "permessage-deflate"}); got != "permessage-deflate" {
		t.Errorf("two lines: %q", got)
	}
}

func TestAgreed(t *testing.T) {
	const offer = "permessage-deflate; client_max_window_bits"
	for in, want := range map[string][2]bool{
		"permessage-deflate": {false, false},
		"permessage-deflate; client_no_context_takeover; client_max_window_bits=12": {true, false},
		"permessage-deflate; server_no_context_takeover; server_max_window_bits=8":  {false, true},
		"permessage-deflate;server_no_context_takeover;client_no_context_takeover":  {true, true},
	} {
		a, err := Agreed([]string{in}, offer)
		if err != nil || a.Client == nil || a.Server == nil || a.Client.NoTakeover != want[0] || a.Server.NoTakeover != want[1] {
			t.Errorf("%s: %+v, %v", in, a, err)
		}
	}
	for _, none := range [][]string{nil, {""}, {" , "}} {
		if a, err := Agreed(none, offer); err != nil || a.Client != nil || a.Server != nil {
			t.Errorf("%q: %+v, %v", none, a, err)
		}
	}
}

// TestExtensionsThatNobodyOfferedAreRefused: frames of an extension that cannot be read would pass unread.
func TestExtensionsThatNobodyOfferedAreRefused(t *testing.T) {
	for _, c := range [][2]string{
		{"permessage-bzip2", "permessage-deflate"},
		{"permessage-deflate", ""},
		{"permessage-deflate, permessage-deflate", "permessage-deflate"},
		{"permessage-deflate; client_max_window_bits=10", "permessage-deflate"},
		{"permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits"},
		{"permessage-deflate; foo=1", "permessage-deflate"},
		{"permessage-deflate; \"", "permessage-deflate"},
		{"a b", "permessage-deflate"},
	} {
		if a, err := Agreed([]string{c[0]}, c[1]); err == nil {
			t.Errorf("%q for %q: %+v", c[0], c[1], a)
		}
	}
}
