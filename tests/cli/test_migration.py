"""What the tables of the guide's topics migrating-* say works: each option on their right-hand sides stands in a command here,
and the commands run, on the embedded world and models of toy size."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from icltool.cli.app import run
from tests.components.datasets.builders import write_karpathy
from tests.plugin.distributions import ofa_registered

PAGES = sorted((Path(__file__).parents[2] / "icltool" / "guide").glob("migrating-*.md"))

#: What no command here has, and why.
NOT_RUN = {
    "--devices": "needs GPUs; `--workers` takes the same way",
    "--option loggers": "needs wandb or tensorboard, which icltool does without; tests of the learners give it",
}
SEARCH = "--task caption --model tiny-idefics --encoder tiny-clip"
LEARNED = "--task vqa --model tiny-idefics --prompt-template live --device cpu --dtype float32"
CAPTIONED = "--dataset coco-karpathy --task caption --model tiny-blip2"
STYLED = (
    "--dataset personality-captions --task style --model tiny-ofa --model-option tokenize_style=true "
    "--model-option styles={source}/personality_captions/personalities.txt"
)
PROMPTED = STYLED.replace("tokenize_style=true", "style_prompt='a {{}} caption?'")

LEVER_LM = f"""
prepare coco2017 --root {{source}}
prepare vqav2 --root {{source}}
prepare vqav2-sub --root {{source}} --option ids={{ids}}
embed --dataset coco2017 --task caption --encoder tiny-clip --batch-size 32
generate --dataset coco2017 {SEARCH} --sampler mix --sampler-option random=0.5 --sampler-option text=0.25
  --sampler-option image=0.25 --anchors 12 --candidates 8 --beam-size 2 --shots 2 --batch-size auto --scorer infoscore
  --construct-order right --seed 42 --device cpu --dtype float32 --output {{out}}/right.h5
generate --dataset coco2017 {SEARCH} --sampler random --scorer cider --construct-order left --anchors 2 --candidates 4
  --beam-size 1 --shots 1 --batch-size 4
generate --dataset coco2017 {SEARCH} --queries validation --anchors 2 --candidates 4 --shots 1 --dry-run
export sequences --input {{out}}/right.h5 --output {{out}}/sequences.json
train lever-lm --dataset coco2017 --task caption --encoder tiny-clip --sequences {{out}}/right.h5 --option network=lstm
  --option variant=query_img_icd_img_text --option n_embd=16 --option n_layer=1 --option adapter=true
  --option norm=false --option freeze=image,text --option lr=1e-4 --option weight_decay=1e-3 --option warmup=0.05
  --option batch_size=8 --option val_fraction=0.25 --option threshold=-10 --option reverse_seq=true --option epochs=1
  --option validations_per_epoch=2 --trainer devices=1 --trainer strategy=auto
train lever-lm --dataset coco2017 --task caption --encoder tiny-clip --sequences {{out}}/right.h5 --option network=gpt2
  --option n_embd=16 --option n_head=2 --option n_layer=1 --option epochs=1 --trainer log_every_n_steps=1
evaluate --dataset coco2017 {SEARCH} --method zero-shot,random,i2i,i2t,t2t,lever-lm --method-option random.fixed=true
  --method-option lever-lm.batch_size=256 --method-option lever-lm.beams=2 --shots 1,2 --reversed-order --permutations 2
  --checkpoint {{selector}} --checkpoint-choice min_tl --index-size 40 --test-size 4 --batch-size 4 --max-new-tokens 5
  --num-beams 2 --length-penalty 0 --min-new-tokens 0 --leak-guard image --seed 1 --csv {{out}}/all.csv
evaluate --dataset coco2017 {SEARCH} --method i2i --no-reversed-order --shots 2 --test-size 4 --overwrite
evaluate --dataset coco2017 {SEARCH} --method "last=lever-lm:checkpoint=last" --method lever-lm --shots 1 --test-size 2
evaluate --dataset coco2017 {SEARCH} --method mmr,bm25,votek,dpp,kmeans --shots 2 --test-size 2
export results --output {{out}}/results.csv
export plan --method mmr --output {{out}}/plan.json
export chat --method mmr --output {{out}}/chat.jsonl
evaluate --dataset coco2017 {SEARCH} --plan {{out}}/plan.json --test-size 2
"""
LIVE = f"""
prepare vqav2 --root {{source}}
train live --dataset vqav2 {LEARNED} --option shots=1 --option max_train_size=8 --option batch_size=2 --option lr=1e-3
  --option alpha_lr=1e-2 --option alpha=0.1 --option alpha_sigmoid=false --option hard_loss_weight=0.5
  --option temperature=2.0 --option temperature_schedule=learned --option weight_decay=1e-3 --option warmup=0.1
  --option epochs=1 --option accumulate=2 --option clip=1.0 --option precision=32-true --option grad_checkpointing=true
  --image-workers 0 --seed 426 --trainer devices=1
train live --dataset vqav2 {LEARNED} --option shots=1 --option max_train_size=4 --option batch_size=2 --option epochs=1
  --option temperature_schedule=decay
train live --dataset vqav2 {LEARNED} --option shots=1 --option max_train_size=4 --option batch_size=2 --option epochs=1
  --option teacher_draws=2 --option teacher_top_k=16
embed --dataset vqav2 --task vqa --encoder tiny-clip
evaluate --dataset vqav2 {LEARNED} --method live,random --shots 1 --vectors {{vectors}} --test-size 4 --index-size 20
evaluate --dataset vqav2 {LEARNED} --method i2i --no-reversed-order --encoder tiny-clip --shots 1 --test-size 2
"""
CAPTIONERS = f"""
prepare coco-karpathy --root {{karpathy}} --option split=validation --overwrite
prepare coco-karpathy --root {{karpathy}} --overwrite
train captioner {CAPTIONED} --option freeze=vit --option crop=resized --option flip=true --option schedule=blip2
  --option lr=1e-4 --option min_lr=1e-6 --option warmup_lr=1e-6 --option warmup_steps=1 --option weight_decay=0.05
  --option layer_decay=0.9 --option epochs=1 --option batch_size=2 --option accumulate=1 --option workers=1
  --option max_target_tokens=8 --option grad_checkpointing=true --option precision=32-true --option image_size=32
  --option max_new_tokens=5 --option min_new_tokens=0 --option num_beams=2 --batch-size 2 --seed 1
evaluate {CAPTIONED} --method finetuned --metric bleu-4,cider --max-new-tokens 5 --min-new-tokens 0 --num-beams 2
evaluate --dataset coco-karpathy --task caption --model {{captioner}} --method zero-shot --max-new-tokens 5
evaluate --profile captioner-shapes-blip2 --set dataset=coco-karpathy --set test_size=1 --method zero-shot
prepare personality-captions --root {{source}} --option missing=skip --option suffix=.jpg
train captioner {STYLED} --option image_size=64 --option shorter=72 --option epochs=1 --option batch_size=8
  --option lr=1e-4 --option min_lr=0 --option warmup=0.06 --option weight_decay=0.01 --option freeze=resnet
  --option itm=true --option itm_alpha=0.5 --option max_train_size=8 --option development_size=4
  --option max_target_tokens=8 --option max_new_tokens=5 --option num_beams=2
train captioner {STYLED} --model-path {{styled}} --option scst=true --option epochs=1 --option batch_size=4
  --option max_train_size=4 --option development_size=4 --option max_new_tokens=5
evaluate {PROMPTED} --method zero-shot --test-size 2 --max-new-tokens 5
evaluate {STYLED} --method finetuned --test-size 2 --csv {{out}}/styled.csv --max-new-tokens 5
caption --dataset personality-captions --model {{styled}} --samples 2 --max-new-tokens 5
caption --input {{entries}} --images {{source}}/personality_captions/yfcc_images --model {{styled}} --description mine
  --output {{out}}/captions.json --max-new-tokens 5
export model --input {{styled}} --format tar.gz --configuration no-paths --output {{out}}/backup.tar.gz
export model --input {{styled}} --format tar.gz --configuration none --output {{out}}/bare.tar.gz
"""


def commands(text: str) -> Iterator[list[str]]:
    """The words of each; what is indented goes on."""
    for line in text.strip().replace("\n  ", " ").splitlines():
        yield shlex.split(line)


def options(words: list[str]) -> Iterator[str]:
    """ "--flag", and "--flag KEY" of those that take KEY=VALUE."""
    for place, word in enumerate(words):
        if word.startswith("--"):
            yield word
            key = re.match(r"([\w.]+)=", words[place + 1]) if place + 1 < len(words) else None
            if key and word in KEYED:
                yield f"{word} {key[1]}"


KEYED = ("--option", "--trainer", "--model-option", "--sampler-option", "--method-option")


def promised() -> set[str]:
    """What the right-hand sides of the tables name, in the form of `options`."""
    assert len(PAGES) == 3
    tables = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names: set[str] = set()
    for row in re.findall(r"^\|.*\|$", tables, flags=re.MULTILINE):
        flag = ""
        for span in re.findall(r"`([^`]+)`", row.rstrip("|").rpartition(" | ")[2]):
            words = span.replace("…", "").split()
            if not any(word.startswith("--") for word in words) and re.match(r"[\w.]+=", span) and flag:
                words = [flag, *words]  # `--option lr=…`, `min_lr=…`
            names |= set(options(words))
            flag = next((word for word in reversed(words) if word in KEYED), flag)
    return names


def test_every_option_of_the_tables_is_in_a_command() -> None:
    names = promised()
    assert len(names) > 100, "the tables are read"
    run_here = {name for text in (LEVER_LM, LIVE, CAPTIONERS) for words in commands(text) for name in options(words)}
    assert sorted(names - run_here - set(NOT_RUN) - {"--workspace"}) == []


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded world's files, in the official layouts."""
    workspace = tmp_path_factory.mktemp("world")
    small = ["--option", "index_images=60", "--option", "validation_images=12"]
    assert run(["prepare", "shapes", "--workspace", str(workspace), "--quiet", *small]) == 0
    return workspace / "datasets" / "shapes" / "source"


@pytest.fixture
def runs(tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Runs commands, with what stands for their places filled in."""

    def ran(text: str, **more: Callable[[], Path]) -> None:
        out = tmp_path / "out"
        out.mkdir()
        for words in commands(text):
            places = {name: place() for name, place in more.items() if f"{{{name}}}" in " ".join(words)}
            call = [word.format(source=source, out=out, **places) for word in words]
            code = run([*call, "--quiet", "--workspace", str(tmp_path / "workspace")])
            assert code == 0, (call, capfd.readouterr().err)

    return ran


def newest(workspace: Path, pattern: str) -> Path:
    return max(workspace.glob(f"checkpoints/{pattern}"), key=lambda path: path.stat().st_mtime)


@pytest.mark.training
def test_the_commands_of_lever_lm(tmp_path: Path, source: Path, runs: Callable[..., None]) -> None:
    ids = tmp_path / "ids.json"
    questions = json.loads((source / "vqav2" / "v2_OpenEnded_mscoco_val2014_questions.json").read_text())["questions"]
    ids.write_text(json.dumps([question["question_id"] for question in questions[:5]]))
    runs(LEVER_LM, ids=lambda: ids, selector=lambda: newest(tmp_path / "workspace", "lever-lm-coco2017-*"))


@pytest.mark.training
def test_the_commands_of_live(tmp_path: Path, source: Path, runs: Callable[..., None]) -> None:
    runs(
        LIVE,
        vectors=lambda: newest(tmp_path / "workspace", "live-*/last.safetensors"),
    )


@pytest.mark.training
def test_the_commands_of_the_captioners(tmp_path: Path, source: Path, runs: Callable[..., None]) -> None:
    karpathy = write_karpathy(tmp_path / "karpathy")
    [entry, *_] = json.loads((source / "personality_captions" / "test.json").read_text())
    entries = tmp_path / "entries.json"
    entries.write_text(json.dumps([{"style": entry["personality"], "image_hash": entry["image_hash"]}]))
    with ofa_registered(tmp_path):
        runs(
            CAPTIONERS,
            karpathy=lambda: karpathy,
            entries=lambda: entries,
            captioner=lambda: newest(tmp_path / "workspace", "captioner-coco-karpathy-*"),
            styled=lambda: newest(tmp_path / "workspace", "captioner-personality-captions-*"),
        )
