package corpus

import (
	"fmt"
	"strings"
)

// raw returns an answer that is nothing but these bytes.
func raw(want []byte, parts ...string) made { return made{raw: strings.Join(parts, ""), want: want} }

const ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

func length(n int) string { return fmt.Sprintf("Content-Length: %d\r\n", n) }

// framed is a construct that is nothing but bytes.
func framed(family, name string, valid bool, text func(b string) string) construct {
	return construct{family, name, valid, func(b []byte) made { return raw(b, text(string(b))) }}
}

const (
	good = true
	bad  = false
)

// lengths are answers whose length is said in odd ways.
func lengths() []construct {
	f := func(name string, valid bool, text func(b string) string) construct {
		return framed("Content-Length", name, valid, text)
	}
	return []construct{
		f("plain", good, func(b string) string { return ok + length(len(b)) + "\r\n" + b }),
		f("none, to the end", good, func(b string) string { return ok + "\r\n" + b }),
		f("none, Connection: close", good, func(b string) string { return ok + "Connection: close\r\n\r\n" + b }),
		f("twice the same", good, func(b string) string { return ok + length(len(b)) + length(len(b)) + "\r\n" + b }),
		f("a list of the same", bad, func(b string) string { return ok + fmt.Sprintf("Content-Length: %d, %d\r\n\r\n", len(b), len(b)) + b }),
		f("first too short", bad, func(b string) string { return ok + length(3) + length(len(b)) + "\r\n" + b }),
		f("second too short", bad, func(b string) string { return ok + length(len(b)) + length(3) + "\r\n" + b }),
		f("first zero", bad, func(b string) string { return ok + length(0) + length(len(b)) + "\r\n" + b }),
		f("zero, then content", bad, func(b string) string { return ok + length(0) + "\r\n" + b }),
		f("too short", bad, func(b string) string { return ok + length(10) + "\r\n" + b }),
		f("cuts the virus", bad, func(b string) string { return ok + length(100) + "\r\n" + b }),
		f("too long", bad, func(b string) string { return ok + length(len(b)+50) + "\r\n" + b }),
		f("too long by far", bad, func(b string) string { return ok + "Content-Length: 9223372036854775807\r\n\r\n" + b }),
		f("beyond 64 bits", bad, func(b string) string { return ok + "Content-Length: 99999999999999999999\r\n\r\n" + b }),
		f("negative", bad, func(b string) string { return ok + "Content-Length: -1\r\n\r\n" + b }),
		f("empty", bad, func(b string) string { return ok + "Content-Length:\r\n\r\n" + b }),
		f("signed", bad, func(b string) string { return ok + fmt.Sprintf("Content-Length: +%d\r\n\r\n", len(b)) + b }),
		f("hexadecimal", bad, func(b string) string { return ok + fmt.Sprintf("Content-Length: 0x%x\r\n\r\n", len(b)) + b }),
		f("leading zeros", good, func(b string) string { return ok + fmt.Sprintf("Content-Length: 000%d\r\n\r\n", len(b)) + b }),
		f("with a fraction", bad, func(b string) string { return ok + fmt.Sprintf("Content-Length: %d.0\r\n\r\n", len(b)) + b }),
		f("white space around", good, func(b string) string { return ok + fmt.Sprintf("Content-Length: \t %d \t\r\n\r\n", len(b)) + b }),
		f("folded", bad, func(b string) string { return ok + fmt.Sprintf("Content-Length:\r\n %d\r\n\r\n", len(b)) + b }),
		f("space before the colon", bad, func(b string) string { return ok + fmt.Sprintf("Content-Length : %d\r\n\r\n", len(b)) + b }),
		f("with an underscore", bad, func(b string) string { return ok + "Content_Length: 3\r\n\r\n" + b }),
		f("named by Connection", bad, func(b string) string { return ok + "Connection: Content-Length\r\n" + length(len(b)) + "\r\n" + b }),
		f("an answer behind the answer", bad, func(b string) string {
			return ok + length(2) + "\r\nhi" + ok + length(len(b)) + "\r\n" + b
		}),
		f("with chunks", bad, func(b string) string { return ok + length(5) + "Transfer-Encoding: chunked\r\n\r\n" + inChunks(b) }),
		f("before chunks, right", bad, func(b string) string {
			return ok + "Transfer-Encoding: chunked\r\n" + length(len(inChunks(b))) + "\r\n" + inChunks(b)
		}),
	}
}

// inChunks frames b in chunks, one of which ends within the virus.
func inChunks(b string) string { return chunked(b, "\r\n", "", 7, 100, 3) }

// chunked frames b in chunks of these sizes, the last for all that follow.
func chunked(b, eol, ext string, sizes ...int) string {
	var out strings.Builder
	for i := 0; len(b) > 0; i++ {
		n := min(sizes[min(i, len(sizes)-1)], len(b))
		fmt.Fprintf(&out, "%x%s%s%s%s", n, ext, eol, b[:n], eol)
		b = b[n:]
	}
	return out.String() + "0" + ext + eol + eol
}

// chunks are answers with Transfer-Encoding.
func chunks() []construct {
	f := func(name string, valid bool, head string, text func(b string) string) construct {
		return framed("Transfer-Encoding", name, valid, func(b string) string { return ok + head + "\r\n" + text(b) })
	}
	const te = "Transfer-Encoding: chunked\r\n"
	all := []construct{
		f("chunked", good, te, inChunks),
		f("one chunk", good, te, func(b string) string { return chunked(b, "\r\n", "", 1<<20) }),
		f("single bytes", good, te, func(b string) string { return chunked(b, "\r\n", "", 1) }),
		f("in capitals", good, "TRANSFER-ENCODING: CHUNKED\r\n", inChunks),
		f("extensions", good, te, func(b string) string { return chunked(b, "\r\n", ";name=value;other", 50) }),
		f("quoted extensions", good, te, func(b string) string { return chunked(b, "\r\n", `;name="a;b"`, 50) }),
		f("white space before the extension", bad, te, func(b string) string { return chunked(b, "\r\n", " ;x", 50) }),
		f("space behind the size", bad, te, func(b string) string { return chunked(b, "\r\n", "  ", 50) }),
		f("extension with a line end in it", bad, te, func(b string) string { return chunked(b, "\r\n", ";\nx", 50) }),
		f("the virus in extensions", bad, te, func(b string) string { return "2;" + strings.ReplaceAll(b, "\n", " ") + "\r\nhi\r\n0\r\n\r\n" }),
		f("very long extension", bad, te, func(b string) string { return chunked(b, "\r\n", ";"+strings.Repeat("x", 10000), 50) }),
		f("LF alone", bad, te, func(b string) string { return chunked(b, "\n", "", 50) }),
		f("CR alone", bad, te, func(b string) string { return chunked(b, "\r", "", 50) }),
		f("CRCRLF", bad, te, func(b string) string { return chunked(b, "\r\r\n", "", 50) }),
		f("leading zeros", good, te, func(b string) string { return "0000" + chunked(b, "\r\n", "", 1<<20) }),
		f("0x before the size", bad, te, func(b string) string { return "0x" + chunked(b, "\r\n", "", 1<<20) }),
		f("a sign before the size", bad, te, func(b string) string { return "+" + chunked(b, "\r\n", "", 1<<20) }),
		f("negative size", bad, te, func(b string) string { return "-1\r\n" + b }),
		f("size beyond 64 bits", bad, te, func(b string) string { return "fffffffffffffffff0\r\n" + b }),
		f("no size", bad, te, func(b string) string { return "\r\n" + b + "\r\n0\r\n\r\n" }),
		f("not in chunks at all", bad, te, func(b string) string { return b }),
		f("no last chunk", bad, te, func(b string) string { return strings.TrimSuffix(inChunks(b), "0\r\n\r\n") }),
		f("last chunk without end", bad, te, func(b string) string { return strings.TrimSuffix(inChunks(b), "\r\n") }),
		f("ends within a chunk", bad, te, func(b string) string { return fmt.Sprintf("%x\r\n%s", len(b)+50, b) }),
		f("chunk longer than it says", bad, te, func(b string) string { return "5\r\n" + b + "\r\n0\r\n\r\n" }),
		f("content behind the last chunk", bad, te, func(b string) string { return "2\r\nhi\r\n0\r\n\r\n" + b }),
		f("trailers", good, te+"Trailer: X-Sum\r\n", func(b string) string {
			return strings.TrimSuffix(inChunks(b), "\r\n") + "X-Sum: 1234\r\n\r\n"
		}),
		f("trailer Content-Encoding", bad, te+"Trailer: Content-Encoding\r\n", func(b string) string {
			return strings.TrimSuffix(inChunks(gzipped(b)), "\r\n") + "Content-Encoding: gzip\r\n\r\n"
		}),
		f("trailer Content-Length", bad, te+"Trailer: Content-Length\r\n", func(b string) string {
			return strings.TrimSuffix(inChunks(b), "\r\n") + "Content-Length: 3\r\n\r\n"
		}),
		f("the virus as a trailer", bad, te, func(b string) string { return "2\r\nhi\r\n0\r\nX: y\r\n\r\n" + b }),
		f("chunks in chunks, said once", bad, te, func(b string) string { return inChunks(inChunks(b)) }),
		f("chunks in chunks", bad, "Transfer-Encoding: chunked, chunked\r\n", func(b string) string { return inChunks(inChunks(b)) }),
		f("chunked, identity", bad, "Transfer-Encoding: chunked, identity\r\n", inChunks),
		f("identity, chunked", bad, "Transfer-Encoding: identity, chunked\r\n", inChunks),
		f("two lines", bad, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", inChunks),
		f("gzip, chunked", bad, "Transfer-Encoding: gzip, chunked\r\n", func(b string) string { return inChunks(gzipped(b)) }),
		f("gzip alone", bad, "Transfer-Encoding: gzip\r\n", gzipped),
		f("TE: gzip said by the server", bad, "TE: gzip\r\nTransfer-Encoding: chunked\r\n", func(b string) string { return inChunks(gzipped(b)) }),
		{"Transfer-Encoding", "with gzip declared as content", good, func(b []byte) made {
			z := gzipped(string(b))
			m := raw(b, ok+te+"Content-Encoding: gzip\r\n\r\n"+chunked(z, "\r\n", "", 11, 30, 3))
			m.sent = []byte(z)
			return m
		}},
	}
	for name, line := range map[string]string{
		"vertical tab": "Transfer-Encoding:\vchunked\r\n", "xchunked": "Transfer-Encoding: xchunked\r\n",
		"quoted": "Transfer-Encoding: \"chunked\"\r\n", "folded": "Transfer-Encoding:\r\n chunked\r\n", "semicolon": "Transfer-Encoding: chunked;q=1\r\n",
		"space before the colon": "Transfer-Encoding : chunked\r\n", "trailing comma": "Transfer-Encoding: chunked,\r\n",
		"NUL": "Transfer-Encoding: chunked\x00\r\n", "misspelt name": "Transfer_Encoding: chunked\r\n", "in X-": "X: y\rTransfer-Encoding: chunked\r\n",
		"identity": "Transfer-Encoding: identity\r\n", "empty": "Transfer-Encoding:\r\n",
		"named by Connection": "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
	} {
		all = append(all, f("odd: "+name, bad, line, inChunks))
	}
	return append(all, framed("Transfer-Encoding", "in HTTP/1.0", bad, func(b string) string {
		return "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + inChunks(b)
	}), framed("Transfer-Encoding", "in HTTP/1.0, with a length", bad, func(b string) string {
		return "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" + length(len(inChunks(b))) + "\r\n" + inChunks(b)
	}))
}

// heads are answers whose head is written in odd ways.
func heads() []construct {
	f := func(name string, valid bool, text func(b string) string) construct {
		return framed("line ends, syntax", name, valid, text)
	}
	return []construct{
		f("LF alone", good, func(b string) string { return strings.ReplaceAll(ok+length(len(b)), "\r", "") + "\n" + b }),
		f("LF alone before the content", bad, func(b string) string { return ok + length(len(b)) + "\n" + b }),
		f("CR alone", bad, func(b string) string { return strings.ReplaceAll(ok+length(len(b)), "\n", "") + "\r" + b }),
		f("CRCRLF", bad, func(b string) string { return strings.ReplaceAll(ok+length(len(b))+"\r\n", "\r\n", "\r\r\n") + b }),
		f("CR within a value", bad, func(b string) string { return ok + "X: a\rContent-Length: 3\r\n" + length(len(b)) + "\r\n" + b }),
		f("NUL within a value", bad, func(b string) string { return ok + "X: a\x00b\r\n" + length(len(b)) + "\r\n" + b }),
		f("NUL within a name", bad, func(b string) string { return ok + "X\x00: a\r\n" + length(len(b)) + "\r\n" + b }),
		f("NUL before the status line", bad, func(b string) string { return "\x00" + ok + length(len(b)) + "\r\n" + b }),
		f("folded value", bad, func(b string) string { return ok + "X: a\r\n b\r\n\tc\r\n" + length(len(b)) + "\r\n" + b }),
		f("folded first line", bad, func(b string) string { return "HTTP/1.1 200 OK\r\n X: y\r\n" + length(len(b)) + "\r\n" + b }),
		f("folded coding", bad, func(b string) string {
			return ok + "Content-Encoding:\r\n gzip\r\n" + length(len(gzipped(b))) + "\r\n" + gzipped(b)
		}),
		f("folded line without content", bad, func(b string) string { return ok + "X: y\r\n \r\n" + length(len(b)) + "\r\n" + b }),
		f("space before the colon", bad, func(b string) string { return ok + "X : y\r\n" + length(len(b)) + "\r\n" + b }),
		f("space before the coding's colon", bad, func(b string) string {
			return ok + "Content-Encoding : gzip\r\n" + length(len(gzipped(b))) + "\r\n" + gzipped(b)
		}),
		f("tab before the coding's colon", bad, func(b string) string {
			return ok + "Content-Encoding\t: gzip\r\n" + length(len(gzipped(b))) + "\r\n" + gzipped(b)
		}),
		f("no colon", bad, func(b string) string { return ok + "hello there\r\n" + length(len(b)) + "\r\n" + b }),
		f("no name", bad, func(b string) string { return ok + ": value\r\n" + length(len(b)) + "\r\n" + b }),
		f("empty value", good, func(b string) string { return ok + "X-Empty:\r\n" + length(len(b)) + "\r\n" + b }),
		f("Latin-1 in a value", good, func(b string) string { return ok + "X-Name: caf\xe9\r\n" + length(len(b)) + "\r\n" + b }),
		f("no space behind the colon", good, func(b string) string { return ok + fmt.Sprintf("Content-Length:%d\r\n\r\n", len(b)) + b }),
		f("hundred headers", good, func(b string) string {
			return ok + strings.Repeat("X-Many: one of them\r\n", 100) + length(len(b)) + "\r\n" + b
		}),
		f("a header of 20 KiB", good, func(b string) string {
			return ok + "X-Long: " + strings.Repeat("y", 20<<10) + "\r\n" + length(len(b)) + "\r\n" + b
		}),
		f("blank line first", bad, func(b string) string { return "\r\n" + ok + length(len(b)) + "\r\n" + b }),
		f("two blank lines", bad, func(b string) string { return ok + length(len(b)) + "\r\n\r\n" + b }),
		f("no blank line", bad, func(b string) string { return ok + length(len(b)) + b }),
		f("cut off within the head", bad, func(string) string { return ok + "Content-Le" }),
		f("names in odd case", good, func(b string) string {
			return "HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh: " + fmt.Sprint(len(b)) + "\r\n\r\n" + b
		}),
	}
}

// statuses are odd status lines, versions, and answers that have no content.
func statuses() []construct {
	f := func(name string, valid bool, text func(b string) string) construct {
		return framed("status, version", name, valid, text)
	}
	line := func(name string, valid bool, status string) construct {
		return f(name, valid, func(b string) string { return status + "\r\n" + length(len(b)) + "\r\n" + b })
	}
	empty := func(name, status string) construct {
		return construct{"status, version", name, good, func(b []byte) made { return raw([]byte{}, status+"\r\n"+length(len(b))+"\r\n"+string(b)) }}
	}
	return []construct{
		line("no reason", good, "HTTP/1.1 200 "), line("no reason, no space", bad, "HTTP/1.1 200"), line("other reason", good, "HTTP/1.1 200 Fine By Me"),
		line("200OK", bad, "HTTP/1.1 200OK"), line("two spaces", bad, "HTTP/1.1  200 OK"), line("tab", bad, "HTTP/1.1\t200\tOK"), line("two digits", bad, "HTTP/1.1 20 OK"),
		line("four digits", bad, "HTTP/1.1 2000 OK"), line("negative", bad, "HTTP/1.1 -20 OK"), line("HTTP/1.0", good, "HTTP/1.0 200 OK"), line("HTTP/1.2", bad, "HTTP/1.2 200 OK"),
		line("HTTP/0.9 in a status line", bad, "HTTP/0.9 200 OK"), line("HTTP/2 in the clear", bad, "HTTP/2 200 OK"), line("HTTP/11.1", bad, "HTTP/11.1 200 OK"),
		line("small letters", bad, "http/1.1 200 OK"), line("ICY", bad, "ICY 200 OK"), line("leading space", bad, " HTTP/1.1 200 OK"), line("RTSP", bad, "RTSP/1.0 200 OK"),
		line("404", good, "HTTP/1.1 404 Not Found"), line("500", good, "HTTP/1.1 500 Oops"), line("203", good, "HTTP/1.1 203 Other"), line("299", good, "HTTP/1.1 299 Own"),
		line("302 with content", good, "HTTP/1.1 302 Found\r\nLocation: /x"), line("401 with content", good, "HTTP/1.1 401 No\r\nWww-Authenticate: Basic realm=x"),
		line("407", bad, "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x"), line("101 unasked", bad, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket"),
		line("600", bad, "HTTP/1.1 600 Odd"), line("999", bad, "HTTP/1.1 999 No"),
		f("HTTP/0.9", bad, func(b string) string { return b }),
		f("HTTP/0.9, gzip", bad, gzipped),
		f("HTTP/0.9 that looks like a head", bad, func(b string) string { return "HTTP\r\n\r\n" + b }),
		f("nothing", bad, func(string) string { return "" }),
		f("100 first", good, func(b string) string { return "HTTP/1.1 100 Continue\r\n\r\n" + ok + length(len(b)) + "\r\n" + b }),
		f("103 first", good, func(b string) string {
			return "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + ok + length(len(b)) + "\r\n" + b
		}),
		f("102, 103, 199 first", good, func(b string) string {
			return "HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 199 X\r\n\r\n" + ok + length(len(b)) + "\r\n" + b
		}),
		f("103 with content", bad, func(b string) string {
			return "HTTP/1.1 103 E\r\n" + length(len(b)) + "\r\n" + b + ok + length(2) + "\r\nhi"
		}),
		f("100 without end", bad, func(b string) string {
			return strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 5000) + ok + length(len(b)) + "\r\n" + b
		}),
		f("103 without end", bad, func(b string) string {
			return strings.Repeat("HTTP/1.1 103 E\r\nLink: </x>\r\n\r\n", 200) + ok + length(len(b)) + "\r\n" + b
		}),
		f("1xx alone", bad, func(b string) string { return "HTTP/1.1 100 Continue\r\n\r\n" + b }),
		empty("204 with content", "HTTP/1.1 204 No Content"), empty("304 with content", "HTTP/1.1 304 Not Modified"), empty("205 with content", "HTTP/1.1 205 Reset"),
		{"status, version", "204 with chunks", good, func(b []byte) made {
			return raw([]byte{}, "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", inChunks(string(b)))
		}},
		{"status, version", "200 without content", good, func([]byte) made { return raw([]byte{}, ok, length(0), "\r\n") }},
	}
}
