// Package access decides which clients may ask the server, and how much each of them may ask.
package access

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
)

// A Key is an API key of a client. Several keys of one client share its limits, so that one can be replaced by the
// next.
type Key struct {
	Client string            // its name
	SHA256 [sha256.Size]byte // of the key, which the server does not need to know
}

// Bounds of a file of keys. Each request is compared with all of them.
const (
	mostKeys  = 10_000
	mostBytes = 1 << 20
	mostName  = 64
)

// ReadKeys reads keys from lines in the form of sha256sum: the hash in hexadecimal, and a client's name. It skips
// empty lines and those that begin with #. It returns an error if there are no keys.
func ReadKeys(r io.Reader) ([]Key, error) {
	var keys []Key
	seen := map[[sha256.Size]byte]int{}
	lines := bufio.NewScanner(io.LimitReader(r, mostBytes+1))
	bytes, n := 0, 0
	for lines.Scan() {
		n++
		if bytes += len(lines.Bytes()) + 1; bytes > mostBytes {
			return nil, fmt.Errorf("it has more than %d bytes", mostBytes)
		}
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if first := seen[key.SHA256]; first != 0 {
			return nil, fmt.Errorf("line %d has the same key as line %d", n, first)
		}
		if seen[key.SHA256] = n; len(seen) > mostKeys {
			return nil, fmt.Errorf("it has more than %d keys", mostKeys)
		}
		keys = append(keys, key)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no keys")
	}
	return keys, nil
}

// parseKey parses a line. Its errors do not show the line, which may be a key by mistake.
func parseKey(line string) (key Key, err error) {
	fields := strings.Fields(line)
	if len(fields) != 2 {
		return key, fmt.Errorf("it has %d words: it must be the SHA-256 of a key and a client's name", len(fields))
	}
	hash, err := hex.DecodeString(fields[0])
	if err != nil || len(hash) != len(key.SHA256) {
		return key, errors.New("it must begin with the SHA-256 of a key, 64 hexadecimal digits")
	}
	if name := fields[1]; len(name) > mostName || name == "-" {
		return key, fmt.Errorf("its client must have a name of at most %d bytes other than -", mostName)
	}
	key.Client = fields[1]
	copy(key.SHA256[:], hash)
	return key, nil
}

// find returns the client of the key in an Authorization header. It takes the same time for every key.
func find(keys []Key, authorization string) (client string, err error) {
	scheme, token, _ := strings.Cut(authorization, " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "bearer") || token == "" {
		return "", repository.Errorf(codes.Unauthenticated,
			"this needs an API key: send it as Authorization: Bearer KEY")
	}
	hash := sha256.Sum256([]byte(token))
	at := -1
	for i := range keys {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], keys[i].SHA256[:]), i, at)
	}
	if at < 0 {
		return "", repository.Errorf(codes.Unauthenticated, "the API key is not valid")
	}
	return keys[at].Client, nil
}
