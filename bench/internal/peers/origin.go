package peers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Origin is the running HTTPS site.
type Origin struct {
	*Child
	Port   string
	CAFile string
}

// OriginCommand is the argument with which this very program runs the origin; the file for its CA's certificate follows.
const OriginCommand = "origin"

// StartOrigin runs the HTTPS site as a process of its own, so that its processor time can be told from the client's.
func StartOrigin(ctx context.Context, dir string) (*Origin, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o := &Origin{CAFile: filepath.Join(dir, "origin-ca.pem")}
	cmd := exec.Command(self, OriginCommand, o.CAFile)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd.Stdout = w
	o.Child, err = start("origin", dir, cmd)
	_ = w.Close() // the child has its own
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) })
	defer stop()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if errors.Is(err, io.EOF) {
		<-o.done
	}
	o.Port = strings.TrimSpace(line)
	if _, e := strconv.ParseUint(o.Port, 10, 16); e != nil {
		o.Stop()
		return nil, o.Fault(fmt.Sprintf("did not start (%v)", err))
	}
	return o, nil
}

// URL returns the URL of path on the loopback address host.
func (o *Origin) URL(host, path string) string { return "https://" + host + ":" + o.Port + path }
