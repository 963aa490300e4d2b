//go:build df11_static

package cdf11

// #cgo pkg-config: df11-static
import "C"
