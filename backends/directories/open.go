package directories

import (
	"fmt"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// Open makes the directory of a configuration. Errors are of the configuration, such as a tls_ca that cannot be read; a source
// that cannot be reached is none, and is tried again by each Lookup or in the background.
func Open(name string, c configs.Directory, log *zap.Logger) (Directory, error) {
	kind, ok := kinds[c.Kind]
	if !ok {
		return nil, fmt.Errorf("directory %s: no directory of kind %q", name, c.Kind)
	}
	log = log.With(zap.String("directory", name))
	d, err := kind(c, log)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", name, err)
	}
	if c.Cache > 0 || c.Stale > 0 {
		d = newCached(d, c, log)
	}
	if c.Kind.StoresPasswords() {
		d = &scramDirectory{Directory: d}
	}
	return d, nil
}

// kinds has the maker of each kind.
var kinds = map[configs.DirectoryKind]func(configs.Directory, *zap.Logger) (Directory, error){
	configs.DirectoryFile:    newFile,
	configs.DirectoryLDAP:    newLDAP,
	configs.DirectoryHTTP:    newHTTP,
	configs.DirectoryMUPDATE: newMurder,
	configs.DirectorySQL:     newSQL,
}
