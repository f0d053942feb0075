package main

import (
	"net"
	"testing"

	"lazaret/internal/config"
)

// TestDemoRunsBesideAGateway takes the addresses that a gateway with default settings has, as far as they are free.
func TestDemoRunsBesideAGateway(t *testing.T) {
	cfg := config.Default()
	for _, a := range append(append([]string{cfg.Admin.Listen}, cfg.Web.Listen...), cfg.POP3.Listen...) {
		l, err := net.Listen("tcp", a)
		if err == nil {
			defer l.Close()
		}
	}
	if code := execute(t.Context(), []string{"demo"}); code != exitOK {
		t.Errorf("the demonstration ended with %d", code)
	}
}
