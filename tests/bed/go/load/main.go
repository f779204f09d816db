// load: a steady load on one API server, as real clients make it, that counts what fails by kind.
//
//	load -kubeconfig FILE -name NAME [-server URL] [-namespace default] [-exec POD] [-rate 10]
//
// It runs until its standard input ends, then prints one JSON document. Everything is client-go's as controllers have it: its
// transport, its own repeats after a GOAWAY or "retry after", its RetryWatcher. Three kinds are counted apart, because they
// promise different things:
//
//	unary    a get, a list, a create, an update, a delete; each has ten seconds
//	watch    one that follows this load's own writes: each must be seen once and in order, whatever ends in between;
//	         "resumed" went on where it was, "lost" had to begin anew
//	exec     a stream that stays open and is opened again when it ends
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	watchtools "k8s.io/client-go/tools/watch"
)

const (
	patience = 10 * time.Second
	examples = 20
)

// Count is what one verb did.
type Count struct {
	Done    int            `json:"done"`
	Failed  map[string]int `json:"failed"`
	Slowest int64          `json:"slowest_ms"`
}

// Watch is what the watch saw.
type Watch struct {
	Written int `json:"written"`
	Seen    int `json:"seen"`
	Missed  int `json:"missed"`
	Resumed int `json:"resumed"`
	Lost    int `json:"lost"`
}

// Exec is what became of the open stream.
type Exec struct {
	Opened int            `json:"opened"`
	Ended  map[string]int `json:"ended"`
}

// Report is what is printed.
type Report struct {
	Name     string            `json:"name"`
	Seconds  float64           `json:"seconds"`
	Unary    map[string]*Count `json:"unary"`
	Watch    Watch             `json:"watch"`
	Exec     Exec              `json:"exec"`
	Examples []string          `json:"examples"`
}

type load struct {
	client    *kubernetes.Clientset
	config    *rest.Config
	name      string
	namespace string
	start     time.Time
	lock      sync.Mutex
	report    Report
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "who asks, and by default whom")
	server := flag.String("server", "", "another API server than the kubeconfig's")
	name := flag.String("name", "load", "of this load and of its objects")
	namespace := flag.String("namespace", "default", "where its objects are")
	pod := flag.String("exec", "", "a pod in which a stream stays open")
	rate := flag.Int("rate", 10, "requests a second")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags(*server, *kubeconfig)
	if err == nil {
		err = run(config, *name, *namespace, *pod, *rate)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(config *rest.Config, name, namespace, pod string, rate int) error {
	config.QPS = -1 // the rate is ours
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	l := &load{client: client, config: config, name: name, namespace: namespace, start: time.Now()}
	l.report = Report{Name: name, Unary: map[string]*Count{}, Exec: Exec{Ended: map[string]int{}}, Examples: []string{}}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	first, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, l.counter(0), meta.CreateOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "load: begun")
	var workers, watchers sync.WaitGroup
	spawn := func(group *sync.WaitGroup, work func(context.Context)) {
		group.Add(1)
		go func() { defer group.Done(); work(ctx) }()
	}
	written := make(chan int, 1)
	seeing, blind := context.WithCancel(context.Background())
	watchers.Add(1)
	go func() { defer watchers.Done(); l.follow(seeing, first.ResourceVersion, written) }()
	spawn(&workers, func(ctx context.Context) { l.ask(ctx, time.Second/time.Duration(rate)) })
	spawn(&workers, func(ctx context.Context) { written <- l.count(ctx, 500*time.Millisecond) })
	if pod != "" {
		spawn(&workers, func(ctx context.Context) { l.stay(ctx, pod) })
	}
	_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
	stop()
	workers.Wait()
	over := time.AfterFunc(2*patience, blind)
	watchers.Wait()
	over.Stop()
	blind()
	l.report.Seconds = time.Since(l.start).Seconds()
	last, end := context.WithTimeout(context.Background(), patience)
	defer end()
	_ = client.CoreV1().ConfigMaps(namespace).Delete(last, first.Name, meta.DeleteOptions{})
	return json.NewEncoder(os.Stdout).Encode(l.report)
}

func (l *load) counter(n int) *core.ConfigMap {
	return &core.ConfigMap{
		ObjectMeta: meta.ObjectMeta{Name: "count-" + l.name, Namespace: l.namespace},
		Data:       map[string]string{"n": strconv.Itoa(n)},
	}
}

// one does a request and counts it.
func (l *load) one(ctx context.Context, verb string, request func(context.Context) error) error {
	bounded, end := context.WithTimeout(ctx, patience)
	defer end()
	start := time.Now()
	err := request(bounded)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	took := time.Since(start).Milliseconds()
	l.lock.Lock()
	defer l.lock.Unlock()
	count := l.report.Unary[verb]
	if count == nil {
		count = &Count{Failed: map[string]int{}}
		l.report.Unary[verb] = count
	}
	count.Slowest = max(count.Slowest, took)
	if err == nil {
		count.Done++
	} else {
		count.Failed[kind(err)]++
		l.example(verb, err)
	}
	return err
}

// example is called with the lock held.
func (l *load) example(what string, err error) {
	if len(l.report.Examples) < examples {
		at := time.Since(l.start).Seconds()
		l.report.Examples = append(l.report.Examples, fmt.Sprintf("%.1f s, %s: %v", at, what, err))
	}
}

func kind(err error) string {
	if reason := apierrors.ReasonForError(err); reason != "" {
		return string(reason)
	}
	var transport *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &transport):
		err = transport.Err
	}
	return err.Error()
}

// ask reads and writes Secrets in turn.
func (l *load) ask(ctx context.Context, pause time.Duration) {
	secrets := l.client.CoreV1().Secrets(l.namespace)
	var names []string
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	var open sync.WaitGroup
	defer open.Wait()
	slots := make(chan struct{}, 64)
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		slots <- struct{}{}
		if turn == 0 {
			_ = l.one(ctx, "list", func(ctx context.Context) error {
				list, err := secrets.List(ctx, meta.ListOptions{})
				if err == nil {
					for _, secret := range list.Items {
						// Those of a load come and go.
						if !strings.HasPrefix(secret.Name, "own-") {
							names = append(names, secret.Name)
						}
					}
				}
				return err
			})
		}
		var known string
		if len(names) > 0 {
			known = names[rand.Intn(len(names))]
		}
		open.Add(1)
		go func() {
			defer func() { <-slots; open.Done() }()
			switch {
			case turn%10 == 9:
				own := &core.Secret{ObjectMeta: meta.ObjectMeta{Name: fmt.Sprintf("own-%s-%d-%d", l.name, l.start.Unix(), turn)}, Data: map[string][]byte{"a": []byte("b")}}
				err := l.one(ctx, "create", func(ctx context.Context) error {
					_, err := secrets.Create(ctx, own, meta.CreateOptions{})
					return err
				})
				if err == nil {
					_ = l.one(ctx, "delete", func(ctx context.Context) error { return secrets.Delete(ctx, own.Name, meta.DeleteOptions{}) })
				}
			case turn%50 == 25:
				_ = l.one(ctx, "list", func(ctx context.Context) error {
					_, err := secrets.List(ctx, meta.ListOptions{Limit: 500})
					return err
				})
			case known != "":
				_ = l.one(ctx, "get", func(ctx context.Context) error {
					_, err := secrets.Get(ctx, known, meta.GetOptions{})
					return err
				})
			}
		}()
	}
}

// count writes 1, 2, 3 into one object and returns the last that was acknowledged.
func (l *load) count(ctx context.Context, pause time.Duration) int {
	maps := l.client.CoreV1().ConfigMaps(l.namespace)
	last := 0
	for ctx.Err() == nil {
		// No resourceVersion: a write whose answer was lost is just written again.
		err := l.one(ctx, "update", func(ctx context.Context) error {
			_, err := maps.Update(ctx, l.counter(last+1), meta.UpdateOptions{})
			return err
		})
		if err == nil {
			last++
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return last
}

// follow watches the counter until it has seen the last that was written.
func (l *load) follow(ctx context.Context, version string, written <-chan int) {
	maps := l.client.CoreV1().ConfigMaps(l.namespace)
	only := "metadata.name=count-" + l.name
	seen, goal, begun := 0, -1, 0
	saw := &l.report.Watch
	defer func() { saw.Seen = seen; saw.Written = goal; saw.Missed += max(0, goal-seen) }()
	for ctx.Err() == nil {
		source := &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, options meta.ListOptions) (watch.Interface, error) {
			options.FieldSelector = only
			watching, err := maps.Watch(ctx, options)
			if err == nil {
				begun++
			}
			return watching, err
		}}
		watcher, err := watchtools.NewRetryWatcherWithContext(ctx, version, source)
		if err != nil {
			l.lock.Lock()
			l.example("watch", err)
			l.lock.Unlock()
			return
		}
		version = ""
		for version == "" {
			select {
			case goal = <-written:
				written = nil
			case event, open := <-watcher.ResultChan():
				if object, ok := event.Object.(*core.ConfigMap); open && ok {
					n, _ := strconv.Atoi(object.Data["n"])
					if n > seen+1 {
						saw.Missed += n - seen - 1
					}
					seen = max(seen, n)
					break
				}
				// It could not go on where it was: as an informer would, read it again.
				if ctx.Err() != nil {
					return
				}
				saw.Lost++
				if open {
					l.lock.Lock()
					l.example("watch", apierrors.FromObject(event.Object))
					l.lock.Unlock()
				}
				version = l.reread(ctx, only)
			case <-ctx.Done():
				return
			}
			saw.Resumed = max(0, begun-1)
			if goal >= 0 && seen >= goal {
				return
			}
		}
	}
}

func (l *load) reread(ctx context.Context, only string) string {
	for ctx.Err() == nil {
		list, err := l.client.CoreV1().ConfigMaps(l.namespace).List(ctx, meta.ListOptions{FieldSelector: only})
		if err == nil {
			return list.ResourceVersion
		}
		time.Sleep(time.Second)
	}
	return "0"
}

// stay keeps a stream open in a pod.
func (l *load) stay(ctx context.Context, pod string) {
	request := l.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(l.namespace).Name(pod).SubResource("exec").
		VersionedParams(&core.PodExecOptions{Command: []string{"/bin/bedhelper", "pause"}, Stdout: true}, scheme.ParameterCodec)
	for ctx.Err() == nil {
		executor, err := remotecommand.NewWebSocketExecutor(l.config, "GET", request.URL().String())
		if err == nil {
			l.lock.Lock()
			l.report.Exec.Opened++
			l.lock.Unlock()
			err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard})
		}
		if ctx.Err() != nil {
			return
		}
		why := "ended without an error"
		if err != nil {
			why = kind(err)
		}
		l.lock.Lock()
		l.report.Exec.Ended[why]++
		l.lock.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
