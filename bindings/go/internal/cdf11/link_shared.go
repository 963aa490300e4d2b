//go:build !df11_static

package cdf11

// The shared and the static library have a file each, instead of two conditions in one file. Go's build cache looks at
// files, but not at the arguments of pkg-config, and would otherwise take one kind for the other.

// #cgo pkg-config: df11
import "C"
