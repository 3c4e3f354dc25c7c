//go:build tools

// Package tools names the Helm that the tests of the chart run. It is a module of its own: what it is built from must not
// move what Kubernetes is built from.
package tools

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
