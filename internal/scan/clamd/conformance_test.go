package clamd_test

import (
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"
)

// client returns a Scanner for the given addresses, which the caller closes.
func newScanner(t testing.TB, addresses ...string) *clamd.Scanner {
	t.Helper()
	cfg := clamd.Default()
	cfg.Addresses = addresses
	cfg.Refresh = units.Duration(100 * time.Millisecond)
	s, err := clamd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformanceOverUnixSocket(t *testing.T) { scantest.Run(t, fakeHarness("unix")) }

func TestConformanceOverTCP(t *testing.T) { scantest.Run(t, fakeHarness("tcp")) }

func fakeHarness(network string) scantest.Harness {
	return scantest.Harness{
		New: func(t *testing.T) scan.Scanner {
			return newScanner(t, startFake(t, network).addr())
		},
		Large: 3 << 20,
		Faulty: func(t *testing.T, fault scantest.Fault) *scantest.Faulty {
			f := startFake(t, network)
			f.set(t, fault)
			return &scantest.Faulty{
				Scanner: newScanner(t, f.addr()),
				Met:     func() int { return int(f.met.Load()) },
				Heal:    func() { f.set(t, 0) },
			}
		},
	}
}
