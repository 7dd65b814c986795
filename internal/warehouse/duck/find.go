package duck

import (
	"os"
	"path/filepath"
	"runtime"
)

// FileName is the shared library's.
const FileName = "libduckdb.so"

// Find looks for the shared library: at the path given, where TARN_DUCKDB says,
// beside the running program as `make` leaves it (build/duckdb), above the
// working directory, as tests need it, and where systems keep libraries. "" when
// there is none.
func Find(given string) string {
	if given == "" {
		given = os.Getenv("TARN_DUCKDB")
	}
	if given != "" {
		return given
	}
	var candidates []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dir := filepath.Dir(exe)
		candidates = append(candidates, filepath.Join(dir, "duckdb", FileName), filepath.Join(dir, FileName), filepath.Join(dir, "..", "lib", FileName))
	}
	if dir, err := os.Getwd(); err == nil {
		for dir != filepath.Dir(dir) {
			candidates = append(candidates, filepath.Join(dir, "build", "duckdb", FileName))
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				break
			}
			dir = filepath.Dir(dir)
		}
	}
	if runtime.GOOS == "linux" {
		candidates = append(candidates, "/usr/local/lib/"+FileName, "/usr/lib/"+FileName)
	}
	for _, c := range candidates {
		if st, err := os.Stat(c); err == nil && st.Mode().IsRegular() {
			return c
		}
	}
	return ""
}
