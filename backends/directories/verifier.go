package directories

import (
	"fmt"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// OpenVerifier makes what verifies besides stores and directories; nil where those do.
func OpenVerifier(c configs.Auth, _ *zap.Logger) (Directory, error) {
	switch c.Verify {
	case configs.VerifyBackend, configs.VerifyDirectory, "":
		return nil, nil
	}
	return nil, fmt.Errorf("no verifier %q", c.Verify)
}
