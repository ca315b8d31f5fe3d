//go:build tools

// Package tools pins Docker Compose, which the tests and the demo build from these sources.
package tools

import _ "github.com/docker/compose/v2/cmd"
