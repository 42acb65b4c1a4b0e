"""250 texts of all kinds, always the same: what people write, and what reaches an interface all the same."""

ODD = [
    "", " ", "\n\t\r\n", "a", "?", "...", "0", "\u200b", "\ufeffsalt", "[CLS] [SEP] [MASK]",
    "😀", "👩‍👩‍👧‍👦 🇪🇸 🧂", "salt\x07\x08 and\x1b[31m sea", "\x01\x02\x03\x1f\x7f", "salt\x00sea", "e\u0301 é", "SALT", "salt",
    "¿Por qué es salado el mar?", "El niño comió jalapeños en Logroño.", "Почему море солёное?", "لماذا البحر مالح؟",
    "海はなぜ塩辛いのですか", "Ist ß gleich ss?", "<script>alert('salt')</script>", "{\"texts\": [\"salt\", null]}",
    "fn main() {\n    println!(\"{:?}\", vec![1, 2, 3]);\n}", "SELECT * FROM sea WHERE salt > 3.5 -- percent",
    "for i in range(10):\n\tprint(i ** 2)", "http://127.0.0.1:8888/#/ask?q=salt&lang=es", "x" * 3000, "9" * 200, "a-b_c/d\\e|f",
]
# Beyond the 256 word pieces that the model reads; the last differ only in what it does not read.
LONG = [
    "salt " * 1000, "¿por qué? " * 400, "0123456789 " * 300, "🧂" * 700, "The sea is salty. " * 60 + "Or is it?",
    "river " * 300 + "one", "river " * 300 + "two",
]
THINGS = [
    "cat", "harbour", "tax return", "violin", "glacier", "compiler", "bread", "election", "neutron star", "bicycle", "mortgage",
    "rainforest", "chess", "vaccine", "lighthouse",
]
SENTENCES = [
    "{}", "What is a {}?", "A {} stood in the rain.", "No {} was ever seen here, said the old man, and went on mending his nets.",
    "¿Dónde está el {}?", "{} {} {}", "def {}(x): return x", "I would rather not talk about the {} today, thank you.",
    "Every year in spring, when the snow has melted and the roads are open again, the people of the valley meet to see the {}, and "
    "those who came from far away stay until the evening, eat together and tell each other what the winter was like.",
    "{}! " * 20, "Report on the {}:\n\n1. cost\n2. time\n3. risk\n", "The {} of 1984", "un {} azul y otro rojo", "the opposite of a {}",
]
# What a sentence model is for: the first is nearer to the second than to the third.
NEARER = [
    ("a cat sleeps on the sofa", "a feline naps on the couch", "how do I file my tax return"),
    ("the ship entered the harbour", "a boat arrived at the port", "the violin has four strings"),
    ("how to bake bread", "a recipe for a loaf", "a neutron star collapses"),
]


def texts() -> list[str]:
    """In an order that puts odd and long ones into every batch of 100."""
    plain = [sentence.replace("{}", thing) for thing in THINGS for sentence in SENTENCES]
    special = list(ODD)
    for number, text in enumerate(LONG):
        special.insert(6 * number, text)
    mixed = []
    for number in range(250 - 3 * len(NEARER)):
        take = special if number % 6 == 5 and special else plain
        mixed.append(take.pop(0))
    assert not special
    return mixed + [text for triple in NEARER for text in triple]
