package df11

import "github.com/libdf11/libdf11/bindings/go/internal/cdf11"

// Version returns the version of the running library, such as "0.1.0"; nothing in a program that was built without
// cgo.
func Version() string { return cdf11.Version() }
