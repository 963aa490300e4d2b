package cdf11

// #include "shim.h"
import "C"

import "unsafe"

// note is one call of a C callback: a kind, and up to three strings.
type note struct {
	kind  uint32
	texts [3]string
}

// take copies notes, and frees those of C.
func take(n *C.df11go_notes) (out []note) {
	defer free(n.bytes)
	const size = C.sizeof_df11go_note
	for rest := unsafe.Slice((*byte)(unsafe.Pointer(n.bytes)), n.used); len(rest) >= size; {
		var head C.df11go_note // copied, because strings have any length and heads therefore any alignment
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&head)), size), rest)
		rest = rest[size:]
		one := note{kind: uint32(head.kind)}
		for i, length := range head.bytes {
			one.texts[i] = string(rest[:length])
			rest = rest[length:]
		}
		out = append(out, one)
	}
	return out
}
