// kms: a plugin of Kubernetes' KMS v2 for the tests, on the project's own server (k8s.io/kms). It speaks the real protocol through
// its socket; its key lies in a file in place of a service.
//
//	kms --listen=/run/kmsplugin/socket.sock --key=/etc/kms-key
//
// A key that is not there yet is made. The key's number is what its SHA-256 begins with, so that another key is another number.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/kms/pkg/service"
)

type local struct {
	key  cipher.AEAD
	name string
}

func open(path string) (*local, error) {
	bytes, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		bytes = make([]byte, 32)
		if _, err = rand.Read(bytes); err != nil {
			return nil, err
		}
		err = os.WriteFile(path, bytes, 0o600)
	}
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(bytes)
	if err != nil {
		return nil, err
	}
	key, err := cipher.NewGCM(block)
	return &local{key, fmt.Sprintf("%x", sha256.Sum256(bytes))[:16]}, err
}

func (l *local) Encrypt(_ context.Context, _ string, data []byte) (*service.EncryptResponse, error) {
	nonce := make([]byte, l.key.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return &service.EncryptResponse{Ciphertext: l.key.Seal(nonce, nonce, data, nil), KeyID: l.name}, nil
}

func (l *local) Decrypt(_ context.Context, _ string, asked *service.DecryptRequest) ([]byte, error) {
	size := l.key.NonceSize()
	if asked.KeyID != l.name || len(asked.Ciphertext) < size {
		return nil, fmt.Errorf("key %s is not here", asked.KeyID)
	}
	return l.key.Open(nil, asked.Ciphertext[:size], asked.Ciphertext[size:], nil)
}

func (l *local) Status(context.Context) (*service.StatusResponse, error) {
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: l.name}, nil
}

func run() error {
	listen := flag.String("listen", "", "the socket")
	key := flag.String("key", "", "file with 32 bytes")
	flag.Parse()
	plugin, err := open(*key)
	if err != nil {
		return err
	}
	// One that was killed leaves its socket behind.
	if err := os.Remove(*listen); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	server := service.NewGRPCService(*listen, 3*time.Second, plugin)
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ends
		server.Shutdown()
	}()
	return server.ListenAndServe()
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
