package postgres

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tarndb/tarn"
)

var settingName = regexp.MustCompile(`^[a-z_][a-z0-9_.]*$`)

// reservedSettings are ours: where a server listens and where its files are
// follow from Config, and a second opinion would break adoption and probing.
var reservedSettings = [...]string{
	"config_file", "data_directory", "external_pid_file", "hba_file", "ident_file",
	"listen_addresses", "port", "unix_socket_directories", "unix_socket_permissions",
}

// CheckSetting tells whether a setting can be passed to a server at all; the
// server itself judges whether it knows the name and likes the value.
func CheckSetting(name, value string) error {
	switch {
	case !settingName.MatchString(name):
		return tarn.Invalid("setting %q: want a lower-case name of letters, digits, underscores and dots", name)
	case slices.Contains(reservedSettings[:], name):
		return tarn.Invalid("setting %s: Tarn sets it itself", name)
	case strings.ContainsRune(value, 0):
		return tarn.Invalid("setting %s: the value holds a zero byte", name)
	}
	return nil
}

// arguments is the server's command line after its name. Ours come last: the
// last word on a setting wins.
func (c *Config) arguments() []string {
	args := []string{"-D", c.DataDir}
	for _, name := range slices.Sorted(maps.Keys(c.Settings)) {
		args = append(args, "-c", name+"="+c.Settings[name])
	}
	return append(args,
		"-k", c.SocketDir,
		"-p", strconv.Itoa(c.Port),
		"-c", "listen_addresses=",
		"-c", "unix_socket_permissions=0700",
	)
}
