"""Everything icltool brings along, registered through the hooks that third parties use."""

from __future__ import annotations

from icltool.plugin import Registration, hookimpl
from icltool.plugin.commands import command_target, commands

_HERE = "icltool.components"
#: What a selector that holds CLIP's towers asks for its encoder, and a sampler for its retrieval method.
_BUILD = "icltool.plugin.manager:component"


@hookimpl
def icltool_models() -> list[Registration]:
    idefics = f"{_HERE}.models.idefics.idefics:IdeficsModel"
    return [
        Registration(
            "tiny-idefics",
            idefics,
            "the embedded world's model, 1.4 M parameters",
            {"name": "tiny-idefics", "packaged": "tiny-idefics"},
        ),
        Registration("idefics-9b", idefics, "IDEFICS 9B", {"name": "idefics-9b", "hub_id": "HuggingFaceM4/idefics-9b"}),
        Registration(
            "idefics-9b-instruct",
            idefics,
            "IDEFICS 9B, instruction-tuned",
            {"name": "idefics-9b-instruct", "hub_id": "HuggingFaceM4/idefics-9b-instruct"},
        ),
        Registration(
            "idefics-80b",
            idefics,
            "IDEFICS 80B, over all devices",
            {"name": "idefics-80b", "hub_id": "HuggingFaceM4/idefics-80b", "device_map": "auto"},
        ),
        Registration(
            "idefics-80b-instruct",
            idefics,
            "IDEFICS 80B, instruction-tuned, over all devices",
            {"name": "idefics-80b-instruct", "hub_id": "HuggingFaceM4/idefics-80b-instruct", "device_map": "auto"},
        ),
        *(
            Registration(
                name, f"{_HERE}.models.idefics.idefics2:Idefics2Model", summary, {"name": name, "hub_id": hub_id}
            )
            for name, summary, hub_id in (
                ("idefics2-8b-base", "IDEFICS2 8B", "HuggingFaceM4/idefics2-8b-base"),
                ("idefics2-8b", "IDEFICS2 8B, instruction-tuned", "HuggingFaceM4/idefics2-8b"),
            )
        ),
        Registration(
            "image-text-to-text",
            f"{_HERE}.models.chat.chat:ChatModel",
            "any chat model of several images, by --model-path",
        ),
        *(
            Registration(name, f"{_HERE}.models.chat.chat:ChatModel", summary, {"name": name, "hub_id": hub_id})
            for name, summary, hub_id in (
                ("idefics3-8b", "Idefics3 8B", "HuggingFaceM4/Idefics3-8B-Llama3"),
                ("smolvlm", "SmolVLM 2.2B", "HuggingFaceTB/SmolVLM-Instruct"),
                ("qwen2-vl-7b", "Qwen2-VL 7B", "Qwen/Qwen2-VL-7B-Instruct"),
                ("qwen2.5-vl-7b", "Qwen2.5-VL 7B", "Qwen/Qwen2.5-VL-7B-Instruct"),
                ("qwen3-vl-8b", "Qwen3-VL 8B", "Qwen/Qwen3-VL-8B-Instruct"),
                ("llava-onevision-7b", "LLaVA-OneVision 7B", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
                ("internvl3-8b", "InternVL3 8B", "OpenGVLab/InternVL3-8B-hf"),
                ("gemma-3-4b", "Gemma 3 4B", "google/gemma-3-4b-it"),
            )
        ),
        *(
            Registration(
                name, f"{_HERE}.models.blip.{place}", summary, {"name": name, "hub_id": f"Salesforce/{hub_id}"}
            )
            for place, name, summary, hub_id in (
                ("blip2:Blip2Model", "blip2-opt-2.7b", "BLIP-2, OPT 2.7B", "blip2-opt-2.7b"),
                ("blip2:Blip2Model", "blip2-opt-6.7b", "BLIP-2, OPT 6.7B", "blip2-opt-6.7b"),
                ("blip2:Blip2Model", "blip2-flan-t5-xl", "BLIP-2, Flan-T5 XL", "blip2-flan-t5-xl"),
                ("blip2:Blip2Model", "blip2-flan-t5-xxl", "BLIP-2, Flan-T5 XXL", "blip2-flan-t5-xxl"),
                ("blip2:Blip2Model", "blip2-opt-2.7b-coco", "BLIP-2 fine-tuned on COCO", "blip2-opt-2.7b-coco"),
                ("blip2:Blip2Model", "blip2-opt-6.7b-coco", "BLIP-2 fine-tuned on COCO", "blip2-opt-6.7b-coco"),
                ("blip2:Blip2Model", "blip2-flan-t5-xl-coco", "BLIP-2 fine-tuned on COCO", "blip2-flan-t5-xl-coco"),
                (
                    "instructblip:InstructBlipModel",
                    "instructblip-flan-t5-xl",
                    "InstructBLIP, Flan-T5 XL",
                    "instructblip-flan-t5-xl",
                ),
                (
                    "instructblip:InstructBlipModel",
                    "instructblip-vicuna-7b",
                    "InstructBLIP, Vicuna 7B",
                    "instructblip-vicuna-7b",
                ),
                ("blip:BlipModel", "blip-base", "BLIP base, reads one image", "blip-image-captioning-base"),
                ("blip:BlipModel", "blip-large", "BLIP large, reads one image", "blip-image-captioning-large"),
            )
        ),
        Registration(
            "tiny-blip2",
            f"{_HERE}.models.blip.blip2:Blip2Model",
            "small untrained BLIP-2 that ships with icltool, to be trained on the embedded world",
            {"name": "tiny-blip2", "packaged": "tiny-blip2"},
        ),
        Registration(
            "text-llm", f"{_HERE}.models.text.text:TextModel", "any causal LM, for text tasks, by --model-path"
        ),
        *(
            Registration(name, f"{_HERE}.models.text.text:TextModel", summary, {"name": name, "hub_id": hub_id})
            for name, summary, hub_id in (
                ("gpt2", "GPT-2, text tasks", "openai-community/gpt2"),
                ("gpt-j-6b", "GPT-J 6B, text tasks", "EleutherAI/gpt-j-6b"),
            )
        ),
    ]


@hookimpl
def icltool_datasets() -> list[Registration]:
    return [
        Registration("shapes", f"{_HERE}.datasets.shapes:ShapesReader", "the embedded world; made, not downloaded"),
        Registration("coco2017", f"{_HERE}.datasets.coco2017:Coco2017Reader", "COCO 2017 captions"),
        Registration("coco2014", f"{_HERE}.datasets.coco2014:Coco2014Reader", "COCO 2014 captions"),
        Registration("coco-karpathy", f"{_HERE}.datasets.coco_karpathy:CocoKarpathyReader", "COCO in Karpathy's split"),
        Registration("vqav2", f"{_HERE}.datasets.vqav2:VQAv2Reader", "VQAv2 from its official files"),
        Registration(
            "vqav2-sub",
            f"{_HERE}.datasets.vqav2_sub:VQAv2SubReader",
            "VQAv2 with 10,000 validation questions",
        ),
        Registration("okvqa", f"{_HERE}.datasets.okvqa:OKVQAReader", "OK-VQA from its official files"),
        Registration("vqav2-hub", f"{_HERE}.datasets.vqav2_hub:VQAv2HubReader", "VQAv2 as HuggingFaceM4/VQAv2 has it"),
        Registration("folder", f"{_HERE}.datasets.folder:FolderReader", "a folder of images with a CSV or JSON lines"),
        Registration(
            "hub",
            f"{_HERE}.datasets.hub:HubReader",
            "any data set in Hugging Face's formats, columns by option",
        ),
        Registration(
            "sherlock",
            f"{_HERE}.datasets.sherlock:SherlockReader",
            "Sherlock: inferences from clues in regions",
        ),
        Registration(
            "personality-captions",
            f"{_HERE}.datasets.personality_captions:PersonalityCaptionsReader",
            "PersonalityCaptions: captions in a given personality",
        ),
        Registration("sst2", f"{_HERE}.datasets.sst2:Sst2Reader", "SST-2 of GLUE: sentiment of phrases, text only"),
    ]


@hookimpl
def icltool_tasks() -> list[Registration]:
    return [
        Registration(
            name, "icltool.contracts:packaged_task", summary, {"package": f"{_HERE}.tasks", "file": f"{name}.toml"}
        )
        for name, summary in (
            ("caption", "a sentence about the image"),
            ("vqa", "a short answer to a question about the image"),
            ("classification", "the label of a text, ranked among all labels"),
            ("style", "a sentence about the image in a given style (PersonalityCaptions)"),
            ("inference", "what a clue about a region of the image lets one infer (Sherlock)"),
            ("inference-choice", "the inference that fits a clue, ranked among others (Sherlock)"),
        )
    ]


@hookimpl
def icltool_encoders() -> list[Registration]:
    clip = f"{_HERE}.encoders.open_clip:OpenClipEncoder"
    return [
        Registration("tiny-clip", clip, "the embedded world's CLIP", {"name": "tiny-clip", "packaged": "tiny-clip"}),
        Registration(
            "vit-l-14",
            clip,
            "OpenAI CLIP ViT-L/14",
            {"name": "vit-l-14", "architecture": "ViT-L-14-quickgelu", "pretrained": "openai"},
        ),
        Registration(
            "vit-b-32",
            clip,
            "OpenAI CLIP ViT-B/32",
            {"name": "vit-b-32", "architecture": "ViT-B-32-quickgelu", "pretrained": "openai"},
        ),
    ]


@hookimpl
def icltool_samplers() -> list[Registration]:
    return [
        Registration("random", f"{_HERE}.samplers.random:RandomSampler", "uniform without replacement"),
        Registration("image-sim", f"{_HERE}.samplers.image_sim:ImageSimilaritySampler", "nearest by image"),
        Registration("text-sim", f"{_HERE}.samplers.text_sim:TextSimilaritySampler", "nearest by text"),
        Registration("mix", f"{_HERE}.samplers.mix:MixSampler", "shares of random, text-sim and image-sim"),
        Registration(
            "retrieved",
            f"{_HERE}.samplers.retrieved:RetrievedSampler",
            "what a retrieval method would show: --sampler-option method=NAME",
            {"components": _BUILD},
        ),
    ]


@hookimpl
def icltool_scorers() -> list[Registration]:
    return [
        Registration(
            "infoscore", f"{_HERE}.scorers.infoscore:InfoScore", "probability of the label given the sequence"
        ),
        Registration("cider", f"{_HERE}.scorers.cider:CiderScorer", "CIDEr of the generated answer"),
        Registration("vqa-accuracy", f"{_HERE}.scorers.vqa_accuracy:VQAAccuracyScorer", "VQA accuracy of the answer"),
        Registration(
            "exact-match",
            f"{_HERE}.scorers.exact_match:ExactMatchScorer",
            "whether the answer is a reference",
        ),
        Registration("cosine", f"{_HERE}.scorers.cosine:CosineScorer", "mean similarity to the query; needs no LVLM"),
    ]


@hookimpl
def icltool_retrievers() -> list[Registration]:
    similarity = f"{_HERE}.retrievers.similarity:SimilarityRetriever"
    return [
        Registration("zero-shot", f"{_HERE}.retrievers.zero_shot:ZeroShot", "no demonstrations"),
        Registration("random", f"{_HERE}.retrievers.random:RandomRetriever", "uniform, seeded per query"),
        Registration(
            "i2i", similarity, "query image to ICD image (SIIR, RICES)", {"query": "image", "demonstration": "image"}
        ),
        Registration("i2t", similarity, "query image to ICD text (SITR)", {"query": "image", "demonstration": "text"}),
        Registration("t2t", similarity, "query text to ICD text (STTR)", {"query": "text", "demonstration": "text"}),
        Registration("t2i", similarity, "query text to ICD image", {"query": "text", "demonstration": "image"}),
        Registration(
            "lever-lm",
            f"{_HERE}.retrievers.lever_lm:LeverLMRetriever",
            "the trained selector",
            {"components": _BUILD},
        ),
        Registration(
            "pointer",
            f"{_HERE}.retrievers.pointer:PointerRetriever",
            "the trained pointer selector",
            {"components": _BUILD},
        ),
        Registration("mmr", f"{_HERE}.retrievers.mmr:MMRRetriever", "near the query, unlike each other (MMR)"),
        Registration("dpp", f"{_HERE}.retrievers.dpp:DPPRetriever", "relevant and diverse set (determinantal, CEIL)"),
        Registration("kmeans", f"{_HERE}.retrievers.kmeans:KMeansRetriever", "one of each cluster near the query"),
        Registration(
            "votek", f"{_HERE}.retrievers.votek:VoteKRetriever", "nearest of a representative subset (vote-k)"
        ),
        Registration("bm25", f"{_HERE}.retrievers.bm25:BM25Retriever", "words in common with the query (Okapi BM25)"),
        Registration(
            "oracle",
            f"{_HERE}.retrievers.oracle:OracleRetriever",
            "best sequence searched for the query itself",
        ),
        Registration("plan", f"{_HERE}.retrievers.plan:PlanRetriever", "what a plan file lists for each query"),
    ]


@hookimpl
def icltool_metrics() -> list[Registration]:
    return [
        Registration("cider", f"{_HERE}.metrics.cider:Cider", "CIDEr-D of captions, x 100"),
        Registration("cider-d", f"{_HERE}.metrics.cider:CiderD", "cider under its exact name"),
        *(
            Registration(f"bleu-{n}", f"{_HERE}.metrics.bleu:Bleu", f"corpus BLEU-{n} of captions, %", {"order": n})
            for n in (1, 2, 3, 4)
        ),
        Registration("meteor", f"{_HERE}.metrics.meteor:Meteor", "METEOR 1.5 of captions, %"),
        Registration("rouge-l", f"{_HERE}.metrics.rouge_l:RougeL", "ROUGE-L of captions, %"),
        Registration("spice", f"{_HERE}.metrics.spice:Spice", "SPICE of captions, %; needs the parser's models"),
        Registration("vqa-accuracy", f"{_HERE}.metrics.vqa_accuracy:VQAAccuracy", "official VQA accuracy, %"),
        Registration(
            "okvqa-accuracy",
            f"{_HERE}.metrics.okvqa_accuracy:OKVQAAccuracy",
            "VQA accuracy of stemmed answers, %",
        ),
        Registration(
            "vqa-accuracy-raw",
            f"{_HERE}.metrics.okvqa_accuracy:RawVQAAccuracy",
            "VQA accuracy on what annotators typed, %",
        ),
        Registration(
            "exact-match",
            f"{_HERE}.metrics.exact_match:ExactMatch",
            "answers that equal a reference, normalised, %",
        ),
        Registration("word-accuracy", f"{_HERE}.metrics.word_accuracy:WordAccuracy", "share of the label's words, %"),
        Registration("accuracy", f"{_HERE}.metrics.accuracy:Accuracy", "answers that equal a reference, %"),
        Registration("macro-f1", f"{_HERE}.metrics.macro_f1:MacroF1", "mean over labels of F1, %"),
        Registration("mean-rank", f"{_HERE}.metrics.mean_rank:MeanRank", "mean rank of the right choice, 1 is best"),
        Registration("auc", f"{_HERE}.metrics.auc:Auc", "area under the ROC curve of ranked choices, %"),
    ]


@hookimpl
def icltool_learners() -> list[Registration]:
    return [
        Registration("lever-lm", f"{_HERE}.learners.lever_lm.learner:LeverLM", "small causal model over the index set"),
        Registration(
            "pointer",
            f"{_HERE}.learners.lever_lm.learner:Pointer",
            "Lever-LM that knows examples by their features, and fits any index set",
        ),
        Registration("live", f"{_HERE}.learners.live.learner:Live", "learnable in-context vectors (LIVE)"),
        Registration(
            "mimic", f"{_HERE}.learners.mimic.learner:Mimic", "a learned shift for each attention head (MimIC)"
        ),
        Registration(
            "lora", f"{_HERE}.learners.lora.learner:Lora", "low-rank adapters of the self-attention (LoRA, by PEFT)"
        ),
        Registration(
            "task-vector",
            f"{_HERE}.learners.task_vector:TaskVector",
            "state at the end of prompts, at one layer",
        ),
        Registration(
            "function-vector",
            f"{_HERE}.learners.function_vector:FunctionVector",
            "outputs of the heads with most effect",
        ),
        Registration("icv-pca", f"{_HERE}.learners.icv_pca:IcvPca", "in-context vectors by PCA"),
        Registration(
            "captioner",
            f"{_HERE}.learners.captioner.learner:Captioner",
            "the model itself, fine-tuned on captions",
        ),
    ]


@hookimpl
def icltool_interventions() -> list[Registration]:
    shift = f"{_HERE}.interventions.shift:ShiftVectors"
    last = f"{_HERE}.interventions.last_token:LastTokenVector"
    return [
        Registration("live", shift, "learnable in-context vectors", {"method": "live"}),
        Registration(
            "mimic",
            f"{_HERE}.interventions.head_shift:HeadShift",
            "a shift for each attention head",
            {"method": "mimic"},
        ),
        Registration("lora", f"{_HERE}.interventions.lora:LoRA", "low-rank adapters", {"method": "lora"}),
        Registration("icv-pca", shift, "in-context vectors by PCA", {"method": "icv-pca"}),
        Registration("task-vector", last, "state at the end of the prompt, replaced", {"method": "task-vector"}),
        Registration("function-vector", last, "mean outputs of heads, added", {"method": "function-vector"}),
    ]


@hookimpl
def icltool_executors() -> list[Registration]:
    return [
        Registration("local", f"{_HERE}.executors.local:LocalExecutor", "this process"),
        Registration("ray", f"{_HERE}.executors.ray:RayExecutor", "several devices or machines, on Ray (icltool[ray])"),
    ]


@hookimpl
def icltool_commands() -> list[Registration]:
    return [Registration(name, command_target(name), summary) for name, summary in commands().items()]
