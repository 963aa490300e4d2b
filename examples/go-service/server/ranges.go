package server

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// span is a range of bytes of a body.
type span struct{ first, length uint64 }

// errRange reports a Range header that is malformed, or asks only for bytes that do not exist: 416.
var errRange = errors.New("no such range")

// maxRanges is the limit of ranges in a header. No legitimate client asks for so many.
const maxRanges = 64

// parseRange returns the bytes that a Range header asks for, of a body of size bytes (RFC 9110, section 14). It returns
// false if the whole body is to be sent: for units other than bytes, and for ranges with a gap between them, which
// would need a body of several parts; a server may always send the whole instead. Ranges that touch or overlap become
// one. Ranges outside the body are ignored. If none is left, or one is malformed, the error is errRange.
func parseRange(header string, size uint64) (span, bool, error) {
	unit, list, found := strings.Cut(header, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return span{}, false, nil
	}
	var spans []span
	asked := 0
	for item := range strings.SplitSeq(list, ",") {
		item = strings.Trim(item, " \t")
		if item == "" {
			continue // a list may have empty elements
		}
		if asked++; asked > maxRanges {
			return span{}, false, errRange
		}
		s, there, err := parseItem(item, size)
		if err != nil {
			return span{}, false, err
		}
		if there {
			spans = append(spans, s)
		}
	}
	if len(spans) == 0 {
		return span{}, false, errRange
	}
	all, one := union(spans)
	// The last bytes of an empty body are valid and empty, which Content-Range cannot express.
	return all, one && all.length > 0, nil
}

// parseItem reads first-last, first- or -length. It returns false for bytes that do not exist.
func parseItem(item string, size uint64) (span, bool, error) {
	from, to, found := strings.Cut(item, "-")
	if !found {
		return span{}, false, errRange
	}
	from, to = strings.Trim(from, " \t"), strings.Trim(to, " \t")
	if from == "" {
		n, ok := digits(to)
		if !ok {
			return span{}, false, errRange
		}
		some := n > 0
		n = min(n, size)
		return span{size - n, n}, some, nil
	}
	first, ok := digits(from)
	if !ok {
		return span{}, false, errRange
	}
	last := uint64(1<<64 - 1)
	if to != "" {
		if last, ok = digits(to); !ok || last < first {
			return span{}, false, errRange
		}
	}
	if first >= size {
		return span{}, false, nil
	}
	last = min(last, size-1)
	return span{first, last - first + 1}, true, nil
}

// digits reads a number that consists of digits only. A number that is too large for 64 bits becomes the largest one,
// because no body is longer.
func digits(s string) (uint64, bool) {
	if s == "" {
		return 0, false
	}
	n := uint64(0)
	for i := range len(s) {
		d := uint64(s[i] - '0')
		if d > 9 {
			return 0, false
		}
		if n > (1<<64-1-d)/10 {
			n = 1<<64 - 1
			continue
		}
		n = n*10 + d
	}
	return n, true
}

// union returns the span that all make together, or false if there is a gap between them.
func union(spans []span) (span, bool) {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	all := spans[0]
	for _, s := range spans[1:] {
		if s.first > all.first+all.length {
			return span{}, false
		}
		all.length = max(all.length, s.first+s.length-all.first)
	}
	return all, true
}
