package df11

import "github.com/libdf11/libdf11/bindings/go/internal/cdf11"

// Version returns the version of the running library, such as "0.1.0".
func Version() string { return cdf11.Version() }
