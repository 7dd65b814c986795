package main

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/syncedtable"
	"github.com/tarndb/tarn/internal/token"
)

const dataFlagHelp = "data directory (default $TARN_DATA or ./tarn-data)"

// serverConfig is what `tarn up` is told. Its zero value, completed, is the
// documented default.
type serverConfig struct {
	Data        string // absolute after complete
	PGBin       string // directory of postgres and initdb; "" = found
	ControlDB   string // connection string; "" = a Postgres of Tarn's own
	API         string // host:port of API and console
	TLSCert     string // certificate and key files of the API; "" = plain HTTP on loopback only
	TLSKey      string
	GatewayPort int
	FUSEUring   bool          // use FUSE over io_uring, switched on in the kernel if need be
	Owner       string        // user name of the workspace owner, used at the first start
	Volumes     string        // auto, fuse or directory
	TokenLife   time.Duration // of OAuth access tokens
	AuditKeep   time.Duration // of events in system.access.audit; 0 = forever

	APIRate float64 // requests a second of one principal; 0 = no bound

	alerts  syncedtable.Alerts // told of every synced table
	gate    gatewayConfig
	storage storage    // what was asked of Remote
	Remote  blob.Store // where everything is copied to that must outlive Data; nil = nowhere
	handed  int        // descriptor of what an earlier node left; 0 = none
}

func (c *serverConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.Data, "data", "", dataFlagHelp)
	f.StringVar(&c.PGBin, "pg-bin", "", "directory of Postgres programs (default: the newest of 15 to 18 found)")
	f.StringVar(&c.ControlDB, "control-db", "", "postgres:// address of a database for the control plane (default: Tarn runs one)")
	f.StringVar(&c.API, "listen", "127.0.0.1:8181", "address of the API and console")
	f.StringVar(&c.TLSCert, "tls-cert", "", "certificate file of the API; needed to listen beyond loopback")
	f.StringVar(&c.TLSKey, "tls-key", "", "key file of the API's certificate")
	f.IntVar(&c.GatewayPort, "gateway-port", 5432, "port of the Postgres gateway on every endpoint's address")
	f.DurationVar(&c.AuditKeep, "audit-keep", 365*24*time.Hour, "how long events stay in system.access.audit; 0 = forever")
	f.Float64Var(&c.APIRate, "api-rate", 100, "requests a second to the API that one principal may send for long (ten times as many at once); 0 = no bound")
	c.gate.flags(f)
	f.StringVar(&c.alerts.Webhook, "alert-webhook", "", "URL that is told of failures, lag and dead letters of synced tables")
	f.StringArrayVar(&c.alerts.Command, "alert-command", nil, "program that is told the same on its standard input; repeat the flag for its arguments")
	f.StringVar(&c.Volumes, "volumes", autoVolumes, "how branches are kept: fuse (the page store), directory (plain directories, without FUSE), or auto: as the data directory has them, else fuse where it works")
	f.DurationVar(&c.TokenLife, "token-life", token.MaxLife, "how long OAuth access tokens work, at most 1h")
	c.storage.flags(f)
	f.BoolVar(&c.FUSEUring, "fuse-uring", false, "use FUSE over io_uring, switched on in the kernel (Linux 6.14, root); see docs/limits.md")
	f.StringVar(&c.Owner, "owner", "", "user name of the workspace owner, at the first start (default <user>@localhost)")
}

// locate makes Data absolute.
func (c *serverConfig) locate() error {
	abs, err := filepath.Abs(first(c.Data, os.Getenv("TARN_DATA"), "tarn-data"))
	if err != nil {
		return err
	}
	c.Data = abs
	return nil
}

// complete fills defaults and refuses what can never work.
func (c *serverConfig) complete() error {
	if err := c.locate(); err != nil {
		return err
	}
	// Postgres's user must be able to enter directories that we make.
	syscall.Umask(0o022)
	if err := os.MkdirAll(c.Data, 0o755); err != nil {
		return tarn.Invalid("make data directory %s: %w", c.Data, err)
	}
	if err := c.storage.complete(c.Data); err != nil {
		return err
	}
	if c.Owner == "" {
		c.Owner = "owner@localhost"
		if u, err := user.Current(); err == nil && u.Username != "" {
			c.Owner = u.Username + "@localhost"
		}
	}
	host, _, err := net.SplitHostPort(c.API)
	if err != nil {
		return tarn.Invalid("--listen %q: want host:port", c.API)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return tarn.Invalid("--tls-cert and --tls-key belong together")
	}
	if ip := net.ParseIP(host); c.TLSCert == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return tarn.Invalid("--listen %q: plain HTTP is served on loopback only", c.API).WithHint("give --tls-cert and --tls-key, or --listen 127.0.0.1:8181")
	}
	if c.GatewayPort < 1 || c.GatewayPort > 65535 {
		return tarn.Invalid("--gateway-port %d: want 1 to 65535", c.GatewayPort)
	}
	if c.AuditKeep < 0 {
		return tarn.Invalid("--audit-keep %s: want a time, or 0 for ever", c.AuditKeep)
	}
	if !(c.APIRate >= 0 && c.APIRate <= 1e6) {
		return tarn.Invalid("--api-rate %v: want requests a second, at most 1000000, or 0 for no bound", c.APIRate)
	}
	if c.TokenLife < time.Second || c.TokenLife > token.MaxLife {
		return tarn.Invalid("--token-life %s: want 1s to %s", c.TokenLife, token.MaxLife)
	}
	if err := c.gate.complete(); err != nil {
		return err
	}
	if _, err := c.volumes(); err != nil {
		return err
	}
	return nil
}

// args gives the flags that make another process see the same configuration.
func (c *serverConfig) args() []string {
	a := []string{"--data", c.Data, "--listen", c.API, "--gateway-port", strconv.Itoa(c.GatewayPort), "--owner", c.Owner, "--volumes", c.Volumes, "--token-life", c.TokenLife.String(), "--audit-keep", c.AuditKeep.String(), "--api-rate", strconv.FormatFloat(c.APIRate, 'f', -1, 64)}
	for flag, v := range map[string]string{"--pg-bin": c.PGBin, "--control-db": c.ControlDB, "--tls-cert": c.TLSCert, "--tls-key": c.TLSKey, "--alert-webhook": c.alerts.Webhook} {
		if v != "" {
			a = append(a, flag, v)
		}
	}
	for _, word := range c.alerts.Command {
		a = append(a, "--alert-command", word)
	}
	return append(append(a, c.gate.args()...), c.storage.args()...)
}

// socketDir gives the directory of a unix socket. A socket's path may have 107
// bytes: where the data directory's own is too long, a short one under the
// temporary directory, derived from it, stands in.
func (c *serverConfig) socketDir(name string) string {
	dir := filepath.Join(c.Data, "run", name)
	if len(dir) <= 85 {
		return dir
	}
	sum := sha256.Sum256([]byte(c.Data))
	return filepath.Join(os.TempDir(), "tarn-"+hex.EncodeToString(sum[:6]), name)
}

// nodeSocket is where control and node speak.
func (c *serverConfig) nodeSocket() string { return filepath.Join(c.socketDir("node"), "node.sock") }

func (c *serverConfig) logPath() string { return filepath.Join(c.Data, "log", "tarn.log") }
