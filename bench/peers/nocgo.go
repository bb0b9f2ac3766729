//go:build !cgo

package peers

const dynamic = false
