//go:build tools

// The programs the tests run beside the oracle.
package tools

import (
	_ "filippo.io/torchwood/cmd/litewitness"
	_ "github.com/transparency-dev/tessera/cmd/fsck"
)
