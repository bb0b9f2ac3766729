//go:build !cgo

package peers

// Dynamic says that this program may need shared libraries; it does not.
const Dynamic = false
