package server

import (
	"net/http"
	"strings"
)

// answer is the decision about a request for a body, before the body is made.
type answer struct {
	status int  // 200, 206, 304, 412 or 416
	body   span // of a 200 or 206
}

// decide evaluates the conditions and the range of a request for a body of size bytes, in the order of RFC 9110,
// section 13.2.2. An empty etag means that there is none: nothing matches it. Dates are not used, because the date of a
// model's file says nothing about its bytes.
func decide(r *http.Request, etag string, size uint64) answer {
	whole := answer{http.StatusOK, span{0, size}}
	if values := r.Header.Values("If-Match"); len(values) > 0 && !matches(values, etag, true) {
		return answer{status: http.StatusPreconditionFailed}
	}
	if values := r.Header.Values("If-None-Match"); len(values) > 0 && matches(values, etag, false) {
		return answer{status: http.StatusNotModified}
	}
	ranges := r.Header.Values("Range")
	if r.Method != http.MethodGet || len(ranges) == 0 {
		return whole // a range has no meaning for HEAD
	}
	if condition := r.Header.Values("If-Range"); len(condition) > 0 {
		if len(condition) > 1 || etag == "" || strings.Trim(condition[0], " \t") != etag {
			return whole // another body, or a date
		}
	}
	// Several such headers are not allowed, and cannot be combined: 416.
	s, some, err := parseRange(strings.Join(ranges, ","), size)
	switch {
	case err != nil:
		return answer{status: http.StatusRequestedRangeNotSatisfiable}
	case !some:
		return whole
	}
	return answer{http.StatusPartialContent, s}
}

// matches reports whether a list of entity tags contains this one. In a strong comparison a weak tag equals no other.
func matches(values []string, etag string, strong bool) bool {
	for _, value := range values {
		for value != "" {
			value = strings.TrimLeft(value, " \t,")
			if strings.HasPrefix(value, "*") {
				return true // there is a body, with any tag
			}
			tag, weak := strings.CutPrefix(value, "W/")
			if !strings.HasPrefix(tag, `"`) {
				break // not a tag: the beginning of the next one is unknown
			}
			end := strings.IndexByte(tag[1:], '"')
			if end < 0 {
				break
			}
			if tag[:end+2] == etag && !(strong && weak) {
				return true
			}
			value = tag[end+2:]
		}
	}
	return false
}
