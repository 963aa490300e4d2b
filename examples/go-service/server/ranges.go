package server

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// span is a run of bytes of a body.
type span struct{ first, length uint64 }

// errRange says that a Range header is wrong, or asks only for bytes that there are not: 416.
var errRange = errors.New("no such range")

// maxRanges is how many ranges a header may have: no client that means well asks for so many.
const maxRanges = 64

// parseRange says which bytes of size a Range header asks for (RFC 9110, section 14). It is false where the whole body
// is to be sent: for units other than bytes, and for ranges with something between them, which would take a body of
// several parts; a server may always send the whole instead. Ranges that touch or overlap are one. Ranges that are not
// there are left out; if none is left, or one makes no sense, the error is errRange.
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
	// The last bytes of nothing are there, and none: Content-Range has no words for that.
	return all, one && all.length > 0, nil
}

// parseItem reads first-last, first- or -length. It is false for bytes that there are not.
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

// digits reads a number of digits only; one that is too large for 64 bits is the largest there is, as no body is
// longer.
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

// union is the one span that all make together, or false if something lies between them.
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
