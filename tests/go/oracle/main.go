// Oracle follows a transparency log with other people's implementation of it.
//
//	oracle log PREFIX VKEY        reads every entry below the checkpoint at PREFIX, prints how many
//	oracle receipt FILE VKEY...   checks a tlog-proof whose extra data begins with the record;
//	                              the first key is the log's, the others are of witnesses
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) >= 3 && args[0] == "log" {
		return follow(args[1], args[2])
	}
	if len(args) >= 3 && args[0] == "receipt" {
		return receipt(args[1], args[2:])
	}
	return fmt.Errorf("usage: oracle log PREFIX VKEY | oracle receipt FILE VKEY...")
}

func logPolicy(vkey string) (torchwood.Policy, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	return torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(verifier.Name()),
		torchwood.SingleVerifierPolicy(verifier)), nil
}

func follow(prefix, vkey string) error {
	ctx := context.Background()
	policy, err := logPolicy(vkey)
	if err != nil {
		return err
	}
	fetcher, err := torchwood.NewTileFetcher(prefix)
	if err != nil {
		return err
	}
	client, err := torchwood.NewClient(fetcher)
	if err != nil {
		return err
	}
	signed, err := fetcher.ReadEndpoint(ctx, "checkpoint")
	if err != nil {
		return err
	}
	checkpoint, _, err := torchwood.VerifyCheckpoint(signed, policy)
	if err != nil {
		return err
	}
	tree := tlog.Tree{N: checkpoint.N, Hash: checkpoint.Hash}
	count := int64(0)
	for i, entry := range client.AllEntries(ctx, tree, 0) {
		if i != count || !bytes.HasPrefix(entry, []byte("quarr-log-v1\n")) {
			return fmt.Errorf("entry %d is %q", i, entry)
		}
		count++
	}
	if err := client.Err(); err != nil {
		return err
	}
	for _, i := range []int64{0, count / 2, count - 1} {
		entry, proof, err := client.Entry(ctx, tree, i)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, i, tlog.RecordHash(entry)); err != nil {
			return err
		}
	}
	fmt.Println(count)
	return nil
}

func receipt(path string, vkeys []string) error {
	proof, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	policy, err := logPolicy(vkeys[0])
	if err != nil {
		return err
	}
	for _, vkey := range vkeys[1:] {
		witness, err := torchwood.NewCosignatureVerifier(vkey)
		if err != nil {
			return err
		}
		policy = torchwood.ThresholdPolicy(2, policy, torchwood.SingleVerifierPolicy(witness))
	}
	extra, err := torchwood.ProofExtraData(proof)
	if err != nil {
		return err
	}
	lines := bytes.SplitAfterN(extra, []byte("\n"), 5)
	if len(lines) != 5 {
		return fmt.Errorf("extra data without a record")
	}
	record := bytes.Join(lines[:4], nil)
	return torchwood.VerifyProof(policy, tlog.RecordHash(record), proof)
}
