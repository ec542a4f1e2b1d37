package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/whole"
)

// denyList has the networks of the clients that are turned away: those of the configuration, and those of a file, which is looked at
// when somebody comes and the last look was a while ago. Safe for concurrent use.
type denyList struct {
	log     *zap.Logger
	set     atomic.Pointer[networkSet] // nil as long as there are none
	looked  atomic.Int64               // when the file was last looked at, in ns since 1970
	reading sync.Mutex
	config  configs.Limits
	reader  whole.Reader
	problem string // as it was logged last
}

// lookEvery is how often the file is looked at.
const lookEvery = 2 * time.Second

// prepare reads the networks of a new configuration. apply goes over to them.
func (d *denyList) prepare(config configs.Limits) (apply func(), err error) {
	var reader whole.Reader
	set, err := readDenied(config, &reader)
	if err != nil {
		return nil, err
	}
	return func() {
		d.reading.Lock()
		defer d.reading.Unlock()
		d.config, d.reader, d.problem = config, reader, ""
		d.set.Store(set)
	}, nil
}

// CheckDenied reads the networks that a configuration denies, to find what is wrong with their file.
func CheckDenied(config configs.Limits) error {
	_, err := readDenied(config, new(whole.Reader))
	return err
}

// contains tells whether a client is turned away. A peer on a unix socket never is by the file.
func (d *denyList) contains(client netip.Addr) bool {
	d.follow()
	set := d.set.Load()
	return set != nil && set.contains(client)
}

// count returns how many networks there are.
func (d *denyList) count() int {
	if set := d.set.Load(); set != nil {
		return len(set.prefixes)
	}
	return 0
}

// follow reads the file again if it has changed. Who comes meanwhile does not wait.
func (d *denyList) follow() {
	now := time.Now().UnixNano()
	if last := d.looked.Load(); now-last < int64(lookEvery) && now >= last || !d.reading.TryLock() {
		return
	}
	defer d.reading.Unlock()
	d.looked.Store(now)
	if d.config.DenyFile == "" {
		return
	}
	set, err := readDenied(d.config, &d.reader)
	switch {
	case err != nil && d.problem != err.Error():
		d.problem = err.Error()
		d.log.Warn("the networks to deny stay as they were", zap.Error(err))
	case err == nil && set != nil:
		d.problem = ""
		d.set.Store(set)
		d.log.Info("the networks to deny have changed", zap.String("file", d.config.DenyFile), zap.Int("networks", len(set.prefixes)))
	}
}

// readDenied returns the networks of a configuration, and of its file. It is nil if there is a file, and that was read before.
func readDenied(config configs.Limits, reader *whole.Reader) (*networkSet, error) {
	set := newNetworkSet(config.Deny)
	if config.DenyFile == "" {
		return set, nil
	}
	text, changed, err := reader.Read(config.DenyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the networks to deny: %w", err)
	}
	if !changed {
		return nil, nil
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := string(bytes.TrimSpace(lines.Bytes()))
		if line == "" || line[0] == '#' {
			continue
		}
		networks, err := configs.ParseNetworks(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", config.DenyFile, n, err)
		}
		set.add(networks)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", config.DenyFile, err)
	}
	return set, nil
}

// networkSet finds an address among very many networks.
type networkSet struct {
	unix     bool
	prefixes map[netip.Prefix]struct{}
	lengths  [2][]int // of prefixes of IPv4 and of IPv6
}

func newNetworkSet(networks configs.Networks) *networkSet {
	set := &networkSet{prefixes: make(map[netip.Prefix]struct{})}
	set.add(networks)
	return set
}

func (s *networkSet) add(networks configs.Networks) {
	s.unix = s.unix || networks.Unix
	for _, p := range networks.Prefixes {
		s.prefixes[p] = struct{}{}
		if lengths := &s.lengths[family(p.Addr())]; !slices.Contains(*lengths, p.Bits()) {
			*lengths = append(*lengths, p.Bits())
		}
	}
}

func (s *networkSet) contains(client netip.Addr) bool {
	if !client.IsValid() {
		return s.unix
	}
	client = client.Unmap().WithZone("")
	for _, bits := range s.lengths[family(client)] {
		prefix, _ := client.Prefix(bits) // which fails for a length that no prefix has
		if _, ok := s.prefixes[prefix]; ok {
			return true
		}
	}
	return false
}

// family is 0 for IPv4 and 1 for IPv6.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
