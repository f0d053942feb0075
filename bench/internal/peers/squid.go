package peers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"lazaret/test/ports"
)

const (
	icapModules = "c_icap"                               // below the architecture's library folder
	certgen     = "/usr/lib/squid/security_file_certgen" // makes Squid's certificates
)

// libraryDir returns the folder of c-icap's modules, which Debian puts below a folder for the architecture.
func libraryDir() (string, error) {
	found, err := filepath.Glob(filepath.Join("/usr/lib", "*", icapModules, "virus_scan.so"))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("c-icap's virus_scan.so is not below /usr/lib: install libc-icap-mod-virus-scan")
	}
	return filepath.Dir(found[0]), nil
}

// startICAP runs c-icap with virus_scan on clamd, and returns its address. Like clamd, it is told to scan everything:
// Debian's own settings let bodies above 5 MB pass unscanned.
func startICAP(ctx context.Context, dir, clamdSocket string) (*Child, string, error) {
	lib, err := libraryDir()
	if err != nil {
		return nil, "", err
	}
	addr, err := ports.Free()
	if err != nil {
		return nil, "", err
	}
	tmp := filepath.Join(dir, "c-icap-tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return nil, "", err
	}
	// What is not said here is as in Debian's c-icap.conf and virus_scan.conf, but for names that need no lookup.
	settings := fmt.Sprintf(`PidFile %[1]s/c-icap.pid
CommandsSocket %[1]s/c-icap.ctl
Port %[2]s
ServerAdmin bench@localhost
ServerName bench
TmpDir %[3]s
MaxMemObject 131072
Timeout 300
MaxKeepAliveRequests -1
KeepAliveTimeout 600
StartServers 3
MaxServers 10
MinSpareThreads 10
MaxSpareThreads 20
ThreadsPerChild 10
MaxRequestsPerChild 0
Pipelining on
SupportBuggyClients off
ModulesDir %[4]s
ServicesDir %[4]s
TemplateDir /usr/share/c_icap/templates/
TemplateDefaultLanguage en
LoadMagicFile /etc/c-icap/c-icap.magic
RemoteProxyUsers off
ServerLog %[1]s/c-icap-server.log
AccessLog %[1]s/c-icap-access.log
Module common clamd_mod.so
clamd_mod.ClamdSocket %[5]s
Service antivirus_module virus_scan.so
ServiceAlias avscan virus_scan?allow204=on&sizelimit=off&mode=simple
virus_scan.ScanFileTypes TEXT DATA EXECUTABLE ARCHIVE GIF JPEG MSOFFICE
virus_scan.SendPercentData 5
virus_scan.StartSendPercentDataAfter 2M
virus_scan.MaxObjectSize 2000M
virus_scan.DefaultEngine clamd
`, dir, addr, tmp, lib, clamdSocket)
	conf := filepath.Join(dir, "c-icap.conf")
	if err := os.WriteFile(conf, []byte(settings), 0o644); err != nil {
		return nil, "", err
	}
	c, err := Start("c-icap", dir, "c-icap", "-N", "-f", conf)
	if err != nil {
		return nil, "", err
	}
	options := fmt.Sprintf("OPTIONS icap://%s/avscan ICAP/1.0\r\nHost: %s\r\n\r\n", addr, addr)
	err = c.WaitReady(ctx, 20*time.Second, func() error { return ask("tcp", addr, options, "ICAP/1.0 200") })
	if err != nil {
		c.Stop()
		return nil, "", err
	}
	return c, addr, nil
}

// writeCA writes a new CA's certificate and key into one file, and the certificate alone into another.
func writeCA(both, alone string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Benchmark Squid CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(alone, cert, 0o644); err != nil {
		return err
	}
	return os.WriteFile(both, append(cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...), 0o600)
}

// owned gives dir and what is in it to the user under whom Squid runs when it is started by root.
func owned(dir string) error {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("proxy")
	if err != nil {
		return fmt.Errorf("the user under whom Debian runs Squid: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
}

// squidSettings returns squid.conf. Nothing is cached: what is measured is the way through. Requests are scanned as
// responses are, where they have a body.
func squidSettings(e Env, dir, addr, icap string) (string, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	s := fmt.Sprintf(`http_port 127.0.0.1:%[1]s ssl-bump cert=%[2]s/ca-both.pem generate-host-certificates=on dynamic_cert_mem_cache_size=16MB
sslcrtd_program %[3]s -s %[2]s/ssl_db -M 16MB
sslcrtd_children 8 startup=4 idle=1
tls_outgoing_options cafile=%[4]s
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
acl local src 127.0.0.0/8
http_access allow local
http_access deny all
cache deny all
cache_mem 8 MB
access_log stdio:%[2]s/access.log
cache_log %[2]s/cache.log
pid_filename none
coredump_dir none
pinger_enable off
shutdown_lifetime 0 seconds
max_filedescriptors 16384
visible_hostname bench
`, port, dir, certgen, e.OriginCA)
	if icap != "" {
		s += fmt.Sprintf(`icap_enable on
icap_persistent_connections on
icap_preview_enable on
icap_service scan_resp respmod_precache bypass=off icap://%[1]s/avscan
icap_service scan_req reqmod_precache bypass=off icap://%[1]s/avscan
acl bodies method POST PUT PATCH
adaptation_access scan_resp allow all
adaptation_access scan_req allow bodies
`, icap)
	}
	return s, nil
}

func startSquid(ctx context.Context, e Env, name string, scans bool) (*Running, error) {
	dir, err := e.dir(name)
	if err != nil {
		return nil, err
	}
	r := &Running{CAFile: filepath.Join(dir, "squid", "ca.pem")}
	own := filepath.Join(dir, "squid") // what belongs to Squid's user
	if err := os.Mkdir(own, 0o755); err != nil {
		return nil, err
	}
	icap := ""
	if scans {
		c, addr, err := startICAP(ctx, dir, e.ClamdSocket)
		if err != nil {
			return nil, err
		}
		r.children = append(r.children, c)
		icap = addr
	}
	fail := func(err error) (*Running, error) {
		r.Stop()
		return nil, err
	}
	if r.Proxy, err = ports.Free(); err != nil {
		return fail(err)
	}
	settings, err := squidSettings(e, own, r.Proxy, icap)
	if err != nil {
		return fail(err)
	}
	if err := writeCA(filepath.Join(own, "ca-both.pem"), r.CAFile); err != nil {
		return fail(err)
	}
	out, err := exec.CommandContext(ctx, certgen, "-c", "-s", filepath.Join(own, "ssl_db"), "-M", "16MB").CombinedOutput()
	if err != nil {
		return fail(fmt.Errorf("%s: %w: %s", certgen, err, out))
	}
	conf := filepath.Join(own, "squid.conf")
	if err := os.WriteFile(conf, []byte(settings), 0o644); err != nil {
		return fail(err)
	}
	if err := owned(own); err != nil {
		return fail(err)
	}
	// -N: one process in the foreground, besides its helpers.
	c, err := Start("squid", dir, "squid", "-N", "-f", conf)
	if err != nil {
		return fail(err)
	}
	r.children = append(r.children, c)
	err = c.WaitReady(ctx, 30*time.Second, func() error {
		return ask("tcp", r.Proxy, "OPTIONS / HTTP/1.0\r\n\r\n", "HTTP/1.1 ")
	})
	if err != nil {
		return fail(fmt.Errorf("%w\n    see also %s/cache.log", err, own))
	}
	return r, nil
}
