// etcd's own Go client and its concurrency package against a store that serves etcd's API.
//
// Usage: client ENDPOINT... — when it prints "kill", the leader is to be killed, and a line on its
// standard input says that it was. Prints "all is well" at the end, or why not.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

const (
	puts     = 300
	killAt   = 100
	within   = 60 * time.Second
	accounts = 4
	money    = 100
	lastKey  = "death/puts/last"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println("all is well")
}

func connect(endpoints []string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		DialTimeout: 5 * time.Second,
		Logger:      zap.NewNop(),
	})
}

func run(ctx context.Context, endpoints []string) error {
	first, err := connect(endpoints)
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := connect(endpoints)
	if err != nil {
		return err
	}
	defer second.Close()
	steps := []struct {
		name string
		step func(context.Context, *clientv3.Client, *clientv3.Client) error
	}{
		{"keys", keys},
		{"transactions", transactions},
		{"locks", locks},
		{"election", election},
		{"memory", memory},
		{"leader's death", death},
	}
	for _, one := range steps {
		if err := one.step(ctx, first, second); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		fmt.Println("ok:", one.name)
	}
	return nil
}

// Puts, reads with options, deletes.
func keys(ctx context.Context, c, other *clientv3.Client) error {
	for i := range 10 {
		if _, err := c.Put(ctx, fmt.Sprintf("keys/%d", i), strconv.Itoa(i)); err != nil {
			return err
		}
	}
	got, err := other.Get(ctx, "keys/", clientv3.WithPrefix(), clientv3.WithLimit(3),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return err
	}
	if got.Count != 10 || !got.More || len(got.Kvs) != 3 || string(got.Kvs[0].Key) != "keys/9" {
		return fmt.Errorf("unexpected rows: %v", got)
	}
	before, err := other.Get(ctx, "keys/5", clientv3.WithRev(got.Kvs[0].ModRevision-1))
	if err != nil {
		return err
	}
	if len(before.Kvs) != 1 || string(before.Kvs[0].Value) != "5" {
		return fmt.Errorf("unexpected history: %v", before)
	}
	deleted, err := c.Delete(ctx, "keys/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	if deleted.Deleted != 10 || len(deleted.PrevKvs) != 10 {
		return fmt.Errorf("unexpected deletes: %v", deleted)
	}
	return nil
}

// Compare-and-set, and a nested transaction.
func transactions(ctx context.Context, c, _ *clientv3.Client) error {
	create := func(value string) (*clientv3.TxnResponse, error) {
		return c.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision("txn/one"), "=", 0)).
			Then(clientv3.OpPut("txn/one", value)).
			Else(clientv3.OpTxn(
				[]clientv3.Cmp{clientv3.Compare(clientv3.Value("txn/one"), "=", "first")},
				[]clientv3.Op{clientv3.OpGet("txn/one")},
				nil,
			)).Commit()
	}
	made, err := create("first")
	if err != nil {
		return err
	}
	refused, err := create("second")
	if err != nil {
		return err
	}
	if !made.Succeeded || refused.Succeeded {
		return errors.New("a key was created twice, or never")
	}
	inner := refused.Responses[0].GetResponseTxn()
	if !inner.Succeeded || string(inner.Responses[0].GetResponseRange().Kvs[0].Value) != "first" {
		return fmt.Errorf("unexpected inner transaction: %v", inner)
	}
	return nil
}

// A session of each client, and what ends both.
func sessions(c, other *clientv3.Client) (one, two *concurrency.Session, end func(), err error) {
	if one, err = concurrency.NewSession(c, concurrency.WithTTL(30)); err != nil {
		return nil, nil, nil, err
	}
	if two, err = concurrency.NewSession(other, concurrency.WithTTL(30)); err != nil {
		one.Close()
		return nil, nil, nil, err
	}
	return one, two, func() { two.Close(); one.Close() }, nil
}

// One holder at a time; who waits gets it next.
func locks(ctx context.Context, c, other *clientv3.Client) error {
	one, two, end, err := sessions(c, other)
	if err != nil {
		return err
	}
	defer end()
	held, wanted := concurrency.NewMutex(one, "locks/door"), concurrency.NewMutex(two, "locks/door")
	if err := held.Lock(ctx); err != nil {
		return err
	}
	if err := wanted.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		return fmt.Errorf("a held lock was got: %v", err)
	}
	got := make(chan error, 1)
	go func() { got <- wanted.Lock(ctx) }()
	select {
	case err := <-got:
		return fmt.Errorf("a held lock was got: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := held.Unlock(ctx); err != nil {
		return err
	}
	if err := <-got; err != nil {
		return err
	}
	return wanted.Unlock(ctx)
}

// Leads, says so, resigns; the next one leads.
func election(ctx context.Context, c, other *clientv3.Client) error {
	one, two, end, err := sessions(c, other)
	if err != nil {
		return err
	}
	defer end()
	first, second := concurrency.NewElection(one, "elections/e"), concurrency.NewElection(two, "elections/e")
	if err := first.Campaign(ctx, "first"); err != nil {
		return err
	}
	observing, stop := context.WithCancel(ctx)
	defer stop()
	observed := second.Observe(observing)
	if leader := <-observed; string(leader.Kvs[0].Value) != "first" {
		return fmt.Errorf("%s leads", leader.Kvs[0].Value)
	}
	got := make(chan error, 1)
	go func() { got <- second.Campaign(ctx, "second") }()
	if err := first.Proclaim(ctx, "still first"); err != nil {
		return err
	}
	if leader := <-observed; string(leader.Kvs[0].Value) != "still first" {
		return fmt.Errorf("%s leads", leader.Kvs[0].Value)
	}
	if err := first.Resign(ctx); err != nil {
		return err
	}
	if err := <-got; err != nil {
		return err
	}
	for leader := range observed {
		if string(leader.Kvs[0].Value) == "second" {
			return second.Resign(ctx)
		}
	}
	return errors.New("the second never led")
}

// Software transactional memory: transfers between accounts make and lose no money.
func memory(ctx context.Context, c, other *clientv3.Client) error {
	account := func(i int) string { return fmt.Sprintf("memory/%d", i) }
	for i := range accounts {
		if _, err := c.Put(ctx, account(i), strconv.Itoa(money)); err != nil {
			return err
		}
	}
	var group sync.WaitGroup
	failed := make(chan error, 2)
	for number, client := range []*clientv3.Client{c, other} {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := range 20 {
				from, to := account((i+number)%accounts), account((i+1)%accounts)
				_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
					have, _ := strconv.Atoi(stm.Get(from))
					gets, _ := strconv.Atoi(stm.Get(to))
					if from != to {
						stm.Put(from, strconv.Itoa(have-1))
						stm.Put(to, strconv.Itoa(gets+1))
					}
					return nil
				})
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	group.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	got, err := c.Get(ctx, "memory/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	sum := 0
	for _, kv := range got.Kvs {
		have, _ := strconv.Atoi(string(kv.Value))
		sum += have
	}
	if sum != accounts*money {
		return fmt.Errorf("%d in all accounts, not %d", sum, accounts*money)
	}
	return nil
}

// The leader dies while keys are put, watched, and a lock is held: every acknowledged put is seen
// once and in order, the session lives, and the lock is still held.
func death(ctx context.Context, c, other *clientv3.Client) error {
	session, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer session.Close()
	lock := concurrency.NewMutex(session, "death/lock")
	if err := lock.Lock(ctx); err != nil {
		return err
	}
	watching, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer stop()
	watch := other.Watch(watching, "death/puts/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if created := <-watch; !created.Created {
		return fmt.Errorf("no watch: %v", created)
	}
	watched := make(chan sighting, 1)
	go func() { watched <- follow(watch) }()
	input := bufio.NewReader(os.Stdin)
	acknowledged := map[int64]bool{}
	for i := range puts {
		if i == killAt {
			fmt.Println("kill")
			if _, err := input.ReadString('\n'); err != nil {
				return err
			}
		}
		revision, err := put(ctx, c, fmt.Sprintf("death/puts/%04d", i))
		if err != nil {
			return fmt.Errorf("put %d: %w", i, err)
		}
		acknowledged[revision] = true
	}
	if _, err := put(ctx, c, lastKey); err != nil {
		return err
	}
	seen := <-watched
	if seen.err != nil {
		return seen.err
	}
	for revision := range acknowledged {
		if !seen.revisions[revision] {
			return fmt.Errorf("the acknowledged put of revision %d was never seen", revision)
		}
	}
	held, err := c.Get(ctx, lock.Key())
	if err != nil {
		return err
	}
	if len(held.Kvs) != 1 {
		return errors.New("the lock is lost")
	}
	select {
	case <-session.Done():
		return errors.New("the session is lost")
	default:
	}
	return lock.Unlock(ctx)
}

// Puts a key, again if it is not known whether that was done.
func put(ctx context.Context, c *clientv3.Client, key string) (int64, error) {
	for {
		try, done := context.WithTimeout(ctx, 5*time.Second)
		answer, err := c.Put(try, key, "x")
		done()
		if err == nil {
			return answer.Header.Revision, nil
		}
		if ctx.Err() != nil {
			return 0, err
		}
	}
}

// What a watch has shown.
type sighting struct {
	revisions map[int64]bool
	err       error
}

// Reads events up to the last key's. Each has a larger revision than the one before.
func follow(watch clientv3.WatchChan) sighting {
	seen := sighting{revisions: map[int64]bool{}}
	before := int64(0)
	for answer := range watch {
		if seen.err = answer.Err(); seen.err != nil {
			return seen
		}
		for _, event := range answer.Events {
			revision := event.Kv.ModRevision
			if revision <= before {
				seen.err = fmt.Errorf("revision %d after %d", revision, before)
				return seen
			}
			before = revision
			seen.revisions[revision] = true
			if string(event.Kv.Key) == lastKey {
				return seen
			}
		}
	}
	seen.err = errors.New("the watch ended before the last event")
	return seen
}
