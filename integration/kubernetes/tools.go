//go:build tools

// Package tools names the programs of a control plane that the tests run: their versions stand in go.mod.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
)
