package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lazaret/internal/scan"
	"lazaret/test/harness"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
)

// echo is a page that talks to a WebSocket, which echoes, and answers "virus" with one.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/ws" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, `<!doctype html><title>Socket</title><link rel="icon" href="data:,"><script>
			const big = "large \u20ac ".repeat(50000)
			const ws = new WebSocket("wss://" + location.host + "/ws")
			window.log = []
			ws.onopen = () => { log.push("open " + ws.extensions.split(";")[0]); ws.send("hello"); ws.send(big) }
			ws.onmessage = e => {
				log.push(e.data === big ? "big" : e.data)
				if (e.data === big) ws.send("virus")
			}
			ws.onclose = e => { log.push("close " + e.code + " " + e.reason); window.done = true }
		</script><body>`)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1})
	if err != nil {
		return
	}
	c.SetReadLimit(16 << 20)
	defer c.CloseNow() //nolint:errcheck // the browser has seen what matters
	for {
		kind, b, err := c.Read(context.Background())
		if err != nil {
			return
		}
		if string(b) == "virus" {
			b = scan.EICAR()
		}
		if c.Write(context.Background(), kind, b) != nil {
			return
		}
	}
}

func TestChromiumWebSocket(t *testing.T) {
	o := harness.NewOrigin(t, http.HandlerFunc(echo))
	g := harness.Start(t, nil, o.CA.File)
	ctx := g.Browser(t)
	if err := chromedp.Do(ctx, chromedp.Navigate(o.URL+"/"), chromedp.WaitReady(chromedp.CSS("body"))); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool]("window.done === true")); err != nil {
		t.Fatal(err)
	}
	log := evaluate[string](ctx, t, "log.join('\\n')")
	want := "open permessage-deflate\nhello\nbig\nclose 1008 blocked: a virus was found in a message, reference "
	if !strings.HasPrefix(log, want) {
		t.Errorf("%q", log)
	}
}
