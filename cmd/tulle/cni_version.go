//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cniVersions are those of the CNI specification that the plugin serves and the sample may have, the newest last.
func cniVersions() []string { return []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} }

// usualCNIVersion is the newest that every runtime in use knows.
const usualCNIVersion = "1.0.0"

// askTimeout bounds a plugin's answer to VERSION, for which it has nothing to look up.
const askTimeout = 10 * time.Second

// delegates are the plugins that run for the sample, besides Tulle's own.
func delegates() []string { return []string{"bridge", "host-local", "portmap"} }

// chooseVersion asks the plugins that are there which versions they know. Without --cni-version it takes the newest, up to the usual
// one, that all know; a version that was asked for and that one does not know is refused.
func (i *cniInstall) chooseVersion(ctx context.Context) error {
	common := cniVersions()
	var refusing, knows string
	for _, name := range delegates() {
		program := filepath.Join(i.binDir, name)
		known, err := askVersions(ctx, program)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		common = slices.DeleteFunc(common, func(v string) bool { return !slices.Contains(known, v) })
		if i.cniVersion != "" && !slices.Contains(known, i.cniVersion) && refusing == "" {
			refusing, knows = program, strings.Join(known, ", ")
		}
	}
	switch {
	case len(common) == 0:
		return fmt.Errorf("the plugins in %s (%s) have no CNI version in common: install those of one release of the CNI project's", i.binDir, strings.Join(delegates(), ", "))
	case refusing != "":
		return fmt.Errorf("--cni-version is %s, which %s does not know (it knows %s): choose --cni-version %s, or install newer plugins",
			i.cniVersion, refusing, knows, common[len(common)-1])
	case i.cniVersion != "":
		return nil
	}
	i.cniVersion = common[0]
	for _, v := range common {
		if slices.Index(cniVersions(), v) <= slices.Index(cniVersions(), usualCNIVersion) {
			i.cniVersion = v
		}
	}
	return nil
}

// askVersions returns the versions of the CNI specification that a plugin knows. If there is no such program, the error wraps
// fs.ErrNotExist.
func askVersions(ctx context.Context, program string) ([]string, error) {
	if _, err := os.Stat(program); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("it does not answer within %s", askTimeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = []string{"CNI_COMMAND=VERSION", "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(`{"cniVersion": "` + usualCNIVersion + `"}`)
	var answer bounded
	cmd.Stdout = &answer
	// What the plugin started may keep the pipe when it has ended itself, and its answer is whole then.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var info struct {
		SupportedVersions []string `json:"supportedVersions"`
	}
	switch {
	case answer.over:
		err = fmt.Errorf("it answers with more than %d bytes", maxAnswer)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		err = json.Unmarshal(answer.text, &info)
	}
	if err == nil && len(info.SupportedVersions) == 0 {
		err = errors.New("it names none")
	}
	if err != nil {
		// Without its kind, for a program that is there and lacks its interpreter is not missing.
		return nil, fmt.Errorf("ask %s which CNI versions it knows: %s: put the CNI project's plugin there", program, err)
	}
	return info.SupportedVersions, nil
}

// maxAnswer is far above what an answer to VERSION takes, in bytes.
const maxAnswer = 64 << 10

// bounded keeps what is written to it, up to maxAnswer bytes.
type bounded struct {
	text []byte
	over bool // more was written
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.over = len(b.text)+len(p) > maxAnswer; b.over {
		return 0, io.ErrShortWrite
	}
	b.text = append(b.text, p...)
	return len(p), nil
}
