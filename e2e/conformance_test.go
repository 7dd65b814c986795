package e2e

import (
	"path/filepath"
	"strconv"
	"testing"
)

// Every method of the published SDK's two services does what it says, or stands
// in docs/compatibility.md.
func TestEveryMethodOfThePublishedSDK(t *testing.T) {
	in := start(t)
	list, err := filepath.Abs("../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	in.python("conformance_sdk.py", list, filepath.Join(in.data, "lake"), strconv.Itoa(in.gateway))
}
