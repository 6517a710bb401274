package wordpiece_test

import (
	"fmt"
	"log"
	"strings"

	"github.com/tfbert/go/wordpiece"
)

const vocabulary = `[PAD]
[UNK]
who
won
una
##ffa
##ble
?
`

func Example() {
	vocab, err := wordpiece.ReadVocab(strings.NewReader(vocabulary))
	if err != nil {
		log.Fatal(err)
	}
	tok := wordpiece.Tokenizer{Vocab: vocab}
	fmt.Println(tok.Tokenize("Who won, unaffable?"))
	fmt.Println(tok.AppendIDs(nil, "Who won, unaffable?"))
	// Output:
	// [who won [UNK] una ##ffa ##ble ?]
	// [2 3 1 4 5 6 7]
}

func ExampleTokenizer_Basic() {
	var tok wordpiece.Tokenizer
	fmt.Printf("%q\n", tok.Basic("Beyoncé's “Halo”"))
	tok.Cased = true
	fmt.Printf("%q\n", tok.Basic("Beyoncé's “Halo”"))
	// Output:
	// ["beyonce" "'" "s" "“" "halo" "”"]
	// ["Beyoncé" "'" "s" "“" "Halo" "”"]
}

func ExampleProfile_UnmarshalText() {
	var profile wordpiece.Profile
	err := profile.UnmarshalText([]byte("google"))
	fmt.Println(profile, err)
	err = profile.UnmarshalText([]byte("bert"))
	fmt.Println(err)
	// Output:
	// google <nil>
	// unknown profile "bert": want one of nvidia-19.03, google, nvidia-20.06
}
