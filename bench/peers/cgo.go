//go:build cgo

package peers

// Dynamic says that this program may need shared libraries, which are not
// there in the empty root directory where gVisor runs it again.
const Dynamic = true
