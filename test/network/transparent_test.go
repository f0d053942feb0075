package network

import (
	"errors"
	"io"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/test/harness"

	"golang.org/x/sys/unix"
)

// asRouter is a lab whose gateway is the clients' router.
func asRouter(t *testing.T, redirect string) (*lab, *gateway, *visits) {
	t.Helper()
	l := newLab(t, "c", "g", "s")
	l.cable("c", "c0", []string{clientAddr + "/24", "fd07::2/64"}, "g", "lan0", []string{routerAddr + "/24", "fd07::1/64"})
	l.cable("s", "s0", []string{serverAddr + "/24", otherAddr + "/24", serverSix + "/64"}, "g", "wan0",
		[]string{"93.184.216.1/24", "93.184.217.1/24", "2606:2800:21f:cb07::1/64"})
	l.must("c", "ip", "route", "add", "default", "via", routerAddr)
	l.must("c", "ip", "-6", "route", "add", "default", "via", "fd07::1")
	l.must("s", "ip", "route", "add", "default", "via", "93.184.216.1")
	l.must("s", "ip", "-6", "route", "add", "default", "via", "2606:2800:21f:cb07::1")
	l.must("g", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	ca := harness.NewCA(t)
	v := l.serve(ca, serverAddr, otherAddr, serverSix)
	return l, l.gateway(ca, routerAddr+":8128", redirect), v
}

// scanned checks that clients which know nothing of the gateway get what is clean, and nothing else.
func scanned(t *testing.T, g *gateway) {
	t.Helper()
	for _, c := range []struct {
		name string
		args []string
		want string // the status
	}{
		{"http, clean", []string{"http://" + serverAddr + "/clean"}, "200"},
		{"http, EICAR", []string{"http://" + serverAddr + "/eicar"}, "403"},
		{"https, clean", []string{"--resolve", serverName + ":443:" + serverAddr, "https://" + serverName + "/clean"}, "200"},
		{"https, EICAR", []string{"--resolve", serverName + ":443:" + serverAddr, "https://" + serverName + "/eicar"}, "403"},
		{"https without a name", []string{"https://" + serverAddr + "/eicar"}, "403"},
	} {
		status, remote, body := g.curl(c.args...)
		if status != c.want || remote != serverAddr {
			t.Errorf("%s: status %s from %q: %s", c.name, status, remote, body)
		}
		if c.want == "200" && body != "harmless" {
			t.Errorf("%s: came %q", c.name, body)
		}
		if strings.Contains(body, string(scan.EICAR())) {
			t.Errorf("%s: EICAR came through", c.name)
		}
	}
}

func TestTheGatewayIsTheRouter(t *testing.T) {
	for _, method := range []string{"redirect", "tproxy"} {
		t.Run(method, func(t *testing.T) {
			l, g, v := asRouter(t, `interfaces = ["lan0"]
method = "`+method+`"
exclude = ["`+otherAddr+`/32"]
automatic = true`)
			scanned(t, g)
			if from := v.last(); from == clientAddr {
				t.Errorf("the server was asked by %s itself", from)
			}

			// IPv6 goes the same way.
			if status, remote, body := g.curl("http://[" + serverSix + "]/eicar"); status != "403" || remote != serverSix {
				t.Errorf("IPv6: %s from %s: %s", status, remote, body)
			}
			// What is excluded goes past.
			if _, _, body := g.curl("http://" + otherAddr + "/eicar"); body != string(scan.EICAR()) || v.last() != clientAddr {
				t.Errorf("an excluded server was asked by %s, and answered %q", v.last(), body)
			}
			// The gateway's own machine can still be talked to, and its listener is no open proxy.
			if status, _, _ := g.curl("http://" + routerAddr + ":8128/healthz"); status != "200" {
				t.Errorf("the console answers %s", status)
			}
			if status, _, body := g.curl("http://" + routerAddr + ":" + transparent + "/"); status == "200" {
				t.Errorf("the listener for redirected traffic answers to a direct request: %s", body)
			}
			quicIsRejected(t, l)
			serverSpeaksFirst(t, l)

			out, err := g.lazaret("redirect", "status", "--config", g.config)
			if err != nil || !strings.Contains(out, "in force") || !strings.Contains(out, "3129") {
				t.Errorf("redirect status: %v: %s", err, out)
			}
			if out, err = g.lazaret("redirect", "remove"); err != nil {
				t.Errorf("redirect remove: %v: %s", err, out)
			}
			if left := l.must("g", "nft", "list", "ruleset") + l.must("g", "ip", "rule"); strings.Contains(left, "lazaret") || strings.Contains(left, "6698") {
				t.Errorf("left behind: %s", left)
			}
			if _, _, body := g.curl("http://" + serverAddr + "/eicar"); body != string(scan.EICAR()) {
				t.Errorf("without rules came %q", body)
			}
		})
	}
}

// quicIsRejected sends a datagram to the server's port 443, and wants to hear that nobody takes it.
func quicIsRejected(t *testing.T, l *lab) {
	t.Helper()
	err := l.on("c", func() error {
		c, err := net.Dial("udp", serverAddr+":443")
		if err != nil {
			return err
		}
		defer c.Close()
		for range 3 {
			if _, err := c.Write([]byte("QUIC")); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) // a socket that is open takes it
			if _, err := c.Read(make([]byte, 10)); err != nil {
				return err
			}
		}
		return errors.New("there was an answer")
	})
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("UDP 443: %v", err)
	}
}

// serverSpeaksFirst connects to port 443 and says nothing, as SSH does: it must not hang.
func serverSpeaksFirst(t *testing.T, l *lab) {
	t.Helper()
	err := l.on("c", func() error {
		c, err := net.Dial("tcp", serverAddr+":443")
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second)) // a socket that is open takes it
		_, err = c.Read(make([]byte, 10))
		return err
	})
	var timeout net.Error
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() || !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a client that waits for the server: %v", err)
	}
}

// TestRestartUnderLoad restarts the gateway while a client asks for EICAR without pause: refused meanwhile, and never let
// through.
func TestRestartUnderLoad(t *testing.T) {
	_, g, _ := asRouter(t, "interfaces = [\"lan0\"]\nautomatic = true")
	var through, blocked atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			status, _, body := g.curl("http://" + serverAddr + "/eicar")
			switch {
			case strings.Contains(body, string(scan.EICAR())):
				through.Add(1)
			case status == "403":
				blocked.Add(1)
			}
		}
	}()
	for range 3 {
		g.stop()
		g.start()
	}
	before := blocked.Load()
	for deadline := time.Now().Add(30 * time.Second); blocked.Load() == before && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	close(stop)
	<-done
	if through.Load() > 0 || blocked.Load() == before {
		t.Errorf("EICAR came through %d times; after the last restart %d were blocked", through.Load(), blocked.Load()-before)
	}
}

// TestOpenOnFailure kills a gateway whose rules are to go with it: traffic then passes unscanned.
func TestOpenOnFailure(t *testing.T) {
	_, g, _ := asRouter(t, "interfaces = [\"lan0\"]\nautomatic = true\non_failure = \"open\"")
	scanned(t, g)
	if err := g.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = g.cmd.Wait() // killed
	g.cmd = nil
	if status, _, body := g.curl("http://" + serverAddr + "/clean"); status != "200" || body != "harmless" {
		t.Errorf("without the gateway: %s: %s", status, body)
	}
	g.start()
	scanned(t, g)
}

// TestOpenOnFailureIsUpgraded has another process take over from one whose rules go with it: the kernel keeps others off them
// until it ends, and then the new ones follow. In between there are none, for some milliseconds.
func TestOpenOnFailureIsUpgraded(t *testing.T) {
	l, g, _ := asRouter(t, "interfaces = [\"lan0\"]\nautomatic = true\non_failure = \"open\"")
	scanned(t, g)
	// The process that is there does not end before this connection has. (lab.on would end the thread that the gateway goes by.)
	kept := exec.Command("ip", "netns", "exec", l.namespace("c"), "curl", "-sN", "telnet://"+serverAddr+":80")
	silence, err := kept.StdinPipe()
	if err == nil {
		err = kept.Start()
	}
	if err == nil {
		_, err = io.WriteString(silence, "GET / HTTP/1.1\r\n") // the rest of which does not come
	}
	if err != nil {
		t.Fatal(err)
	}
	left := sync.OnceFunc(func() {
		silence.Close()
		_ = kept.Process.Kill()
		_ = kept.Wait() // killed
	})
	t.Cleanup(left)
	for deadline := time.Now().Add(20 * time.Second); strings.TrimSpace(l.must("g", "ss", "-Htn", "state", "established", "sport = :"+transparent)) == ""; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the gateway has no connection")
		}
	}
	if err := g.cmd.Process.Signal(unix.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	g.await(`"another process has taken over`)
	pid := regexp.MustCompile(`"another process has taken over[^}]*"pid":(\d+)`).FindStringSubmatch(g.log.String())
	next, err := strconv.Atoi(pid[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(next, unix.SIGKILL) }) // it may have ended
	scanned(t, g)
	left()
	g.await(`"the gateway has ended"`)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if out, err := g.lazaret("redirect", "status", "--config", g.config); err == nil && strings.Contains(out, "in force until the gateway ends") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the rules did not come back: %v: %s", err, out)
		}
	}
	scanned(t, g)
}

// TestTheRouterIsAnotherMachine has a router send the clients' web traffic by way of the gateway, by the scripts that
// "redirect plan --router" prints.
func TestTheRouterIsAnotherMachine(t *testing.T) {
	for _, tool := range []string{"nft", "iptables"} {
		t.Run(tool, func(t *testing.T) {
			l := newLab(t, "c", "r", "g", "s")
			l.cable("c", "c0", []string{clientAddr + "/24"}, "r", "port1", nil)
			l.cable("g", "lan0", []string{gatewayAddr + "/24"}, "r", "port2", nil)
			l.must("r", "ip", "link", "add", "lan", "type", "bridge")
			for _, port := range []string{"port1", "port2"} {
				l.must("r", "ip", "link", "set", port, "master", "lan")
			}
			l.must("r", "ip", "link", "set", "lan", "up")
			l.must("r", "ip", "addr", "add", routerAddr+"/24", "dev", "lan")
			l.cable("s", "s0", []string{serverAddr + "/24", otherAddr + "/24"}, "r", "wan0", []string{"93.184.216.1/24", "93.184.217.1/24"})
			l.must("c", "ip", "route", "add", "default", "via", routerAddr)
			l.must("g", "ip", "route", "add", "default", "via", routerAddr)
			l.must("s", "ip", "route", "add", "default", "via", "93.184.216.1")
			l.must("r", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.lan.send_redirects=0")
			l.must("g", "sysctl", "-qw", "net.ipv4.ip_forward=1")
			ca := harness.NewCA(t)
			v := l.serve(ca, serverAddr, otherAddr)
			g := l.gateway(ca, gatewayAddr+":8128", "interfaces = [\"lan0\"]\nexclude = [\""+otherAddr+"/32\"]\nautomatic = true")

			if _, _, body := g.curl("http://" + serverAddr + "/eicar"); body != string(scan.EICAR()) {
				t.Fatalf("before the router knows of the gateway came %q", body)
			}
			args := []string{"redirect", "plan", "--config", g.config, "--router", "--gateway", gatewayAddr, "--interface", "lan"}
			if tool == "iptables" {
				args = append(args, "--iptables")
			}
			script, err := g.lazaret(args...)
			if err != nil {
				t.Fatal(err, script)
			}
			l.must("r", "sh", "-c", script)
			scanned(t, g)
			if from := v.last(); from != gatewayAddr {
				t.Errorf("the server was asked by %s", from)
			}
			if _, _, body := g.curl("http://" + otherAddr + "/eicar"); body != string(scan.EICAR()) || v.last() != clientAddr {
				t.Errorf("an excluded server was asked by %s, and answered %q", v.last(), body)
			}
			quicIsRejected(t, l)
		})
	}
}
