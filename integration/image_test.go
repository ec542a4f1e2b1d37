package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// image is a container's image, unpacked.
type image struct {
	root   string // a directory with what its layers hold
	Config struct {
		User            string
		Entrypoint, Cmd []string
		StopSignal      string
	} `json:"config"`
}

// TestImage: the image holds what the program needs: its user serves from within, keeps its state, and answers the other commands.
func TestImage(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store", passwords, "anna@a.example")
	image := needImage(t)
	ca, host := newCA(t), newHost()
	etc := filepath.Join(image.root, "etc/jackdaw")
	must(t, os.MkdirAll(etc, 0o755))
	installAs(t, ca, etc, "mail.a.example", host)
	must(t, os.Chmod(filepath.Join(etc, "mail.a.example.key"), 0o644)) // the operator's business, with a volume
	config := fmt.Sprintf("hostname = \"mail.a.example\"\nlisten.imaps = %q\ntls.certificates = [\"/etc/jackdaw\"]\n%s",
		net.JoinHostPort(host, portIMAPS), s.serving("imap").backend())
	must(t, os.WriteFile(filepath.Join(etc, "jackdaw.toml"), []byte(config), 0o644))

	daemon := startProcess(t, filepath.Join(t.TempDir(), "log"), image.command(t, image.Config.Cmd...))
	jd := &jackdaw{process: daemon, t: t, host: host, frontend: frontend{ca: ca}}
	daemon.answers(t, "tcp", jd.at(portIMAPS))
	jd.login("mail.a.example", "anna@a.example").ask("NOOP")
	if out, err := image.command(t, "drain", "store").CombinedOutput(); err != nil {
		t.Errorf("the daemon takes no order: %v\n%s", err, out)
	}
	if drained := contents(t, filepath.Join(image.root, "var/lib/jackdaw/drained.json")); !strings.Contains(drained, "store") {
		t.Errorf("its state is %s", drained)
	}
	if log := daemon.Log(); strings.Contains(log, `"level":"warn"`) || strings.Contains(log, `"level":"error"`) {
		t.Error("it misses something")
	}
	if err := daemon.stop(); err != nil || image.Config.StopSignal != "SIGTERM" {
		t.Errorf("by %s, the daemon ended badly: %v", image.Config.StopSignal, err)
	}
}

// command is the image's program, run as a container would, but for namespaces.
func (i *image) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	words := append(i.Config.Entrypoint, args...)
	user, group, _ := strings.Cut(i.Config.User, ":")
	return &exec.Cmd{
		Path: words[0], Args: words, Dir: "/", Env: []string{"HOME=/"},
		SysProcAttr: &syscall.SysProcAttr{Chroot: i.root, Credential: &syscall.Credential{
			Uid: uint32(number(t, user)), Gid: uint32(number(t, group)),
		}},
	}
}

// needImage builds the image, of a version that no tag names, and unpacks it; or it skips the test where that cannot be done.
func needImage(t *testing.T) *image {
	t.Helper()
	buildah, err := exec.LookPath("buildah")
	if err != nil || os.Getuid() != 0 {
		t.Skip("the image is built by buildah, and run by root")
	}
	dir := serverDir(t)
	must(t, os.Chmod(dir, 0o711))
	const version = "1.0.0+1.g0123456789"
	builder := []string{buildah, "--root", dir + "/storage", "--runroot", dir + "/run", "--storage-driver", "vfs"}
	run := func(words ...string) {
		t.Helper()
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Env = append(os.Environ(), "VERSION="+version, "PLATFORMS=linux/"+runtime.GOARCH, "BUILDER="+strings.Join(builder, " "))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	run("../packaging/dist", dir+"/dist")
	run("../packaging/image", dir+"/dist")
	run(append(builder, "push", "jackdaw:"+strings.ReplaceAll(version, "+", "-"), "dir:"+dir+"/image")...)

	type blob struct{ Digest string }
	at := func(b blob) string { return filepath.Join(dir, "image", strings.TrimPrefix(b.Digest, "sha256:")) }
	var manifest struct {
		Config blob
		Layers []blob
	}
	must(t, json.Unmarshal([]byte(contents(t, dir+"/image/manifest.json")), &manifest))
	i := &image{root: dir + "/root"}
	must(t, json.Unmarshal([]byte(contents(t, at(manifest.Config))), i))
	must(t, os.Mkdir(i.root, 0o755))
	for _, layer := range manifest.Layers {
		run("tar", "-xf", at(layer), "-C", i.root)
	}
	return i
}
