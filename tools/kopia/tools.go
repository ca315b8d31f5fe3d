//go:build tools

// Package tools pins the Kopia release that kopiwatch is built and tested with.
package tools

import _ "github.com/kopia/kopia"
