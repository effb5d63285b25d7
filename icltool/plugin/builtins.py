"""The built-in components, registered through the same hooks as those of other packages."""

from __future__ import annotations

from icltool.plugin import Registration, hookimpl
from icltool.plugin.commands import command_target, commands

_HERE = "icltool.components"
#: The captioners that stand for any checkpoint of their architectures, named by its model_type.
_CAPTIONERS = {"blip-base": ("blip",), "blip2-opt-2.7b": ("blip-2",), "instructblip-flan-t5-xl": ("instructblip",)}
#: The function with which a selector that contains CLIP's towers builds its encoder, and a sampler its retriever.
_BUILD = "icltool.plugin.manager:component"


@hookimpl
def icltool_models() -> list[Registration]:
    idefics = f"{_HERE}.models.idefics.idefics:IdeficsModel"
    return [
        Registration(
            "tiny-idefics",
            idefics,
            "model of the embedded world, 1.4 M parameters",
            {"name": "tiny-idefics", "packaged": "tiny-idefics"},
        ),
        Registration(
            "idefics-9b",
            idefics,
            "IDEFICS 9B",
            {"name": "idefics-9b", "hub_id": "HuggingFaceM4/idefics-9b"},
            model_types=("idefics",),
        ),
        Registration(
            "idefics-9b-instruct",
            idefics,
            "IDEFICS 9B, instruction-tuned",
            {"name": "idefics-9b-instruct", "hub_id": "HuggingFaceM4/idefics-9b-instruct"},
        ),
        Registration(
            "idefics-80b",
            idefics,
            "IDEFICS 80B, spread over all devices",
            {"name": "idefics-80b", "hub_id": "HuggingFaceM4/idefics-80b", "device_map": "auto"},
        ),
        Registration(
            "idefics-80b-instruct",
            idefics,
            "IDEFICS 80B, instruction-tuned, spread over all devices",
            {"name": "idefics-80b-instruct", "hub_id": "HuggingFaceM4/idefics-80b-instruct", "device_map": "auto"},
        ),
        *(
            Registration(
                name,
                f"{_HERE}.models.idefics.idefics2:Idefics2Model",
                summary,
                {"name": name, "hub_id": hub_id},
                model_types=("idefics2",) if name == "idefics2-8b" else (),
            )
            for name, summary, hub_id in (
                ("idefics2-8b-base", "IDEFICS2 8B", "HuggingFaceM4/idefics2-8b-base"),
                ("idefics2-8b", "IDEFICS2 8B, instruction-tuned", "HuggingFaceM4/idefics2-8b"),
            )
        ),
        Registration(
            "tiny-smolvlm",
            f"{_HERE}.models.chat.chat:ChatModel",
            "chat model for easy-VQA, 0.95 M parameters",
            {"name": "tiny-smolvlm", "packaged": "tiny-smolvlm"},
        ),
        Registration(
            "image-text-to-text",
            f"{_HERE}.models.chat.chat:ChatModel",
            "any chat model that reads several images, by --model-path",
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
                name,
                f"{_HERE}.models.blip.{place}",
                summary,
                {"name": name, "hub_id": f"Salesforce/{hub_id}"},
                model_types=_CAPTIONERS.get(name, ()),
            )
            for place, name, summary, hub_id in (
                ("blip2:Blip2Model", "blip2-opt-2.7b", "BLIP-2, OPT 2.7B", "blip2-opt-2.7b"),
                ("blip2:Blip2Model", "blip2-opt-6.7b", "BLIP-2, OPT 6.7B", "blip2-opt-6.7b"),
                ("blip2:Blip2Model", "blip2-flan-t5-xl", "BLIP-2, Flan-T5 XL", "blip2-flan-t5-xl"),
                ("blip2:Blip2Model", "blip2-flan-t5-xxl", "BLIP-2, Flan-T5 XXL", "blip2-flan-t5-xxl"),
                (
                    "blip2:Blip2Model",
                    "blip2-opt-2.7b-coco",
                    "BLIP-2, OPT 2.7B, fine-tuned on COCO",
                    "blip2-opt-2.7b-coco",
                ),
                (
                    "blip2:Blip2Model",
                    "blip2-opt-6.7b-coco",
                    "BLIP-2, OPT 6.7B, fine-tuned on COCO",
                    "blip2-opt-6.7b-coco",
                ),
                (
                    "blip2:Blip2Model",
                    "blip2-flan-t5-xl-coco",
                    "BLIP-2, Flan-T5 XL, fine-tuned on COCO",
                    "blip2-flan-t5-xl-coco",
                ),
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
                ("blip:BlipModel", "blip-base", "BLIP base, which reads one image", "blip-image-captioning-base"),
                ("blip:BlipModel", "blip-large", "BLIP large, which reads one image", "blip-image-captioning-large"),
            )
        ),
        Registration(
            "tiny-blip2",
            f"{_HERE}.models.blip.blip2:Blip2Model",
            "small untrained BLIP-2, for fine-tuning on the embedded world",
            {"name": "tiny-blip2", "packaged": "tiny-blip2"},
        ),
        Registration(
            "text-llm",
            f"{_HERE}.models.text.text:TextModel",
            "any causal language model for text tasks, by --model-path",
        ),
        *(
            Registration(name, f"{_HERE}.models.text.text:TextModel", summary, {"name": name, "hub_id": hub_id})
            for name, summary, hub_id in (
                ("gpt2", "GPT-2, for text tasks", "openai-community/gpt2"),
                ("gpt-j-6b", "GPT-J 6B, for text tasks", "EleutherAI/gpt-j-6b"),
            )
        ),
    ]


@hookimpl
def icltool_datasets() -> list[Registration]:
    return [
        Registration(
            "shapes",
            f"{_HERE}.datasets.shapes:ShapesReader",
            "the embedded world: generated images of coloured shapes, no download",
        ),
        Registration(
            "easy-vqa",
            f"{_HERE}.datasets.easy_vqa:EasyVqaReader",
            "easy-VQA from the Python package of that name",
        ),
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
        Registration("vizwiz", f"{_HERE}.datasets.vizwiz:VizWizReader", "VizWiz-VQA from its official files"),
        Registration("textvqa", f"{_HERE}.datasets.textvqa:TextVQAReader", "TextVQA from its official files"),
        Registration(
            "hateful-memes",
            f"{_HERE}.datasets.hateful_memes:HatefulMemesReader",
            "Hateful Memes from its official files",
        ),
        Registration("scienceqa", f"{_HERE}.datasets.scienceqa:ScienceQAReader", "ScienceQA from its official files"),
        Registration("aokvqa", f"{_HERE}.datasets.aokvqa:AokvqaReader", "A-OKVQA from its official files"),
        Registration(
            "flickr30k", f"{_HERE}.datasets.flickr30k:Flickr30kReader", "Flickr30k captions in Karpathy's split"
        ),
        Registration("nocaps", f"{_HERE}.datasets.nocaps:NocapsReader", "NoCaps: queries for the captions of COCO"),
        Registration(
            "seed-bench", f"{_HERE}.datasets.seed_bench:SeedBenchReader", "SEED-Bench, the questions about images"
        ),
        Registration(
            "seed-bench-2",
            f"{_HERE}.datasets.seed_bench:SeedBench2Reader",
            "SEED-Bench-2, the questions answered in text",
        ),
        Registration(
            "mmmu", f"{_HERE}.datasets.mmmu:MmmuReader", "MMMU: college questions of 30 subjects, with images"
        ),
        Registration(
            "vlicl-open-mi",
            f"{_HERE}.datasets.vlicl:OpenMiReader",
            "VL-ICL Bench: invented names of objects",
        ),
        Registration(
            "vlicl-operator", f"{_HERE}.datasets.vlicl:OperatorReader", "VL-ICL Bench: the operator between two digits"
        ),
        Registration(
            "vlicl-operator-interleaved",
            f"{_HERE}.datasets.vlicl:InterleavedOperatorReader",
            "VL-ICL Bench: the same with an image for each digit",
        ),
        Registration(
            "vlicl-clevr", f"{_HERE}.datasets.vlicl:ClevrReader", "VL-ICL Bench: numbers of objects with an attribute"
        ),
        Registration("vlicl-textocr", f"{_HERE}.datasets.vlicl:TextOcrReader", "VL-ICL Bench: the text in a red box"),
        Registration(
            "vlicl-matching",
            f"{_HERE}.datasets.vlicl:MatchingMiReader",
            "VL-ICL Bench: whether two images match",
        ),
        Registration(
            "vqav2-hub", f"{_HERE}.datasets.vqav2_hub:VQAv2HubReader", "VQAv2 in the format of HuggingFaceM4/VQAv2"
        ),
        Registration(
            "folder", f"{_HERE}.datasets.folder:FolderReader", "your own images, with a table in CSV or JSON lines"
        ),
        Registration(
            "imagefolder",
            f"{_HERE}.datasets.imagefolder:ImageFolderReader",
            "your own images, in a folder for each class",
        ),
        Registration(
            "hub",
            f"{_HERE}.datasets.hub:HubReader",
            "any data set in the formats of the Hugging Face hub",
        ),
        Registration(
            "sherlock",
            f"{_HERE}.datasets.sherlock:SherlockReader",
            "Sherlock: inferences from clues in image regions",
        ),
        Registration(
            "personality-captions",
            f"{_HERE}.datasets.personality_captions:PersonalityCaptionsReader",
            "PersonalityCaptions: captions in the style of a personality",
        ),
        Registration(
            "sst2", f"{_HERE}.datasets.sst2:Sst2Reader", "SST-2 of GLUE: sentiment of phrases, without images"
        ),
        Registration("gqa", f"{_HERE}.datasets.gqa:GqaReader", "GQA: compositional questions on images"),
        Registration(
            "staicc",
            f"{_HERE}.datasets.staicc:StaiccReader",
            "texts of StaICC, such as trec and agnews, without images: --option set=NAME",
        ),
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
            ("classification", "the label of a text or an image, chosen among all labels"),
            ("style", "a sentence about the image in a given style (PersonalityCaptions)"),
            ("inference", "an inference from a clue about an image region (Sherlock)"),
            ("inference-choice", "the inference that fits a clue, chosen among several (Sherlock)"),
            ("multiple-choice", "the right one of a question's own choices"),
            ("open-answer", "a free answer to a question, with or without an image"),
        )
    ]


@hookimpl
def icltool_encoders() -> list[Registration]:
    clip = f"{_HERE}.encoders.open_clip:OpenClipEncoder"
    image_text = f"{_HERE}.encoders.image_text:ImageTextEncoder"
    image, text = f"{_HERE}.encoders.image:ImageEncoder", f"{_HERE}.encoders.text:TextEncoder"

    def published(name: str, target: str, summary: str, hub_id: str, **options: object) -> Registration:
        return Registration(name, target, summary, {"name": name, "hub_id": hub_id, **options})

    return [
        Registration("tiny-clip", clip, "CLIP of the embedded world", {"name": "tiny-clip", "packaged": "tiny-clip"}),
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
        published("siglip2", image_text, "SigLIP 2 So400m, images and texts", "google/siglip2-so400m-patch14-384"),
        published("dinov2", image, "DINOv2 ViT-L/14, images only", "facebook/dinov2-large"),
        published("dinov3", image, "DINOv3 ViT-L/16, images only", "facebook/dinov3-vitl16-pretrain-lvd1689m"),
        published("minilm", text, "MiniLM-L6, English texts only", "sentence-transformers/all-MiniLM-L6-v2"),
        published(
            "multilingual-e5",
            text,
            "multilingual E5 base, texts of 100 languages only",
            "intfloat/multilingual-e5-base",
            prefix="query: ",
        ),
        *(
            Registration(name, target, f"{summary}: --encoder-path {paths}", {"name": name})
            for name, target, summary, paths in (
                ("open-clip", clip, "any architecture of open_clip", "DIR or ARCHITECTURE/TAG"),
                (
                    "image-text-encoder",
                    image_text,
                    "any encoder of images and texts of transformers",
                    "DIR or OWNER/NAME",
                ),
                ("image-encoder", image, "any image encoder of transformers", "DIR or OWNER/NAME"),
                (
                    "text-encoder",
                    text,
                    "any text encoder of sentence-transformers or transformers",
                    "DIR or OWNER/NAME",
                ),
            )
        ),
    ]


@hookimpl
def icltool_samplers() -> list[Registration]:
    return [
        Registration("random", f"{_HERE}.samplers.random:RandomSampler", "uniformly at random, without replacement"),
        Registration(
            "image-sim", f"{_HERE}.samplers.image_sim:ImageSimilaritySampler", "the nearest by image embedding"
        ),
        Registration("text-sim", f"{_HERE}.samplers.text_sim:TextSimilaritySampler", "the nearest by text embedding"),
        Registration("mix", f"{_HERE}.samplers.mix:MixSampler", "a mixture of random, text-sim and image-sim"),
        Registration(
            "retrieved",
            f"{_HERE}.samplers.retrieved:RetrievedSampler",
            "the choice of a retriever: --sampler-option method=NAME",
            {"components": _BUILD},
        ),
    ]


@hookimpl
def icltool_scorers() -> list[Registration]:
    return [
        Registration(
            "infoscore",
            f"{_HERE}.scorers.infoscore:InfoScore",
            "probability of the label given the demonstrations (InfoScore)",
        ),
        Registration("cider", f"{_HERE}.scorers.cider:CiderScorer", "CIDEr of the generated answer"),
        Registration(
            "vqa-accuracy", f"{_HERE}.scorers.vqa_accuracy:VQAAccuracyScorer", "VQA accuracy of the generated answer"
        ),
        Registration(
            "exact-match",
            f"{_HERE}.scorers.exact_match:ExactMatchScorer",
            "1 if the generated answer equals a reference, else 0",
        ),
        Registration(
            "cosine", f"{_HERE}.scorers.cosine:CosineScorer", "mean cosine similarity to the query, without a model"
        ),
    ]


@hookimpl
def icltool_retrievers() -> list[Registration]:
    similarity = f"{_HERE}.retrievers.similarity:SimilarityRetriever"
    return [
        Registration("zero-shot", f"{_HERE}.retrievers.zero_shot:ZeroShot", "no demonstrations"),
        Registration("random", f"{_HERE}.retrievers.random:RandomRetriever", "uniformly at random, seeded per query"),
        Registration(
            "episode",
            f"{_HERE}.retrievers.episode:EpisodeRetriever",
            "the query's own class and others of its support set; knows the query's class",
        ),
        Registration(
            "balanced", f"{_HERE}.retrievers.balanced:BalancedRetriever", "as many demonstrations of each class"
        ),
        Registration(
            "i2i",
            similarity,
            "query image to demonstration image (SIIR, RICES)",
            {"query": "image", "demonstration": "image"},
        ),
        Registration(
            "i2t", similarity, "query image to demonstration text (SITR)", {"query": "image", "demonstration": "text"}
        ),
        Registration(
            "t2t", similarity, "query text to demonstration text (STTR)", {"query": "text", "demonstration": "text"}
        ),
        Registration(
            "t2i", similarity, "query text to demonstration image", {"query": "text", "demonstration": "image"}
        ),
        Registration(
            "lever-lm",
            f"{_HERE}.retrievers.lever_lm:LeverLMRetriever",
            "a selector trained by `icltool train lever-lm`",
            {"components": _BUILD},
        ),
        Registration(
            "pointer",
            f"{_HERE}.retrievers.pointer:PointerRetriever",
            "a selector trained by `icltool train pointer`",
            {"components": _BUILD},
        ),
        Registration(
            "mmr",
            f"{_HERE}.retrievers.mmr:MMRRetriever",
            "near the query but unlike each other (maximal marginal relevance)",
        ),
        Registration(
            "dpp",
            f"{_HERE}.retrievers.dpp:DPPRetriever",
            "relevant and diverse set (determinantal point process, CEIL)",
        ),
        Registration(
            "kmeans",
            f"{_HERE}.retrievers.kmeans:KMeansRetriever",
            "one row of each cluster of the query's neighbours (k-means)",
        ),
        Registration(
            "votek", f"{_HERE}.retrievers.votek:VoteKRetriever", "the nearest of a representative subset (vote-k)"
        ),
        Registration("bm25", f"{_HERE}.retrievers.bm25:BM25Retriever", "words shared with the query (Okapi BM25)"),
        Registration(
            "oracle",
            f"{_HERE}.retrievers.oracle:OracleRetriever",
            "the best sequence that was generated for the query itself",
        ),
        Registration(
            "plan", f"{_HERE}.retrievers.plan:PlanRetriever", "the demonstrations that a plan file lists for each query"
        ),
    ]


@hookimpl
def icltool_metrics() -> list[Registration]:
    return [
        Registration("cider", f"{_HERE}.metrics.cider:Cider", "CIDEr-D of captions, x 100"),
        Registration("cider-d", f"{_HERE}.metrics.cider:CiderD", "CIDEr-D of captions, x 100; the same as cider"),
        *(
            Registration(f"bleu-{n}", f"{_HERE}.metrics.bleu:Bleu", f"corpus BLEU-{n} of captions, %", {"order": n})
            for n in (1, 2, 3, 4)
        ),
        Registration("meteor", f"{_HERE}.metrics.meteor:Meteor", "METEOR 1.5 of captions, %"),
        Registration("rouge-l", f"{_HERE}.metrics.rouge_l:RougeL", "ROUGE-L of captions, %"),
        Registration(
            "spice", f"{_HERE}.metrics.spice:Spice", "SPICE of captions, %; needs Java and the models of its parser"
        ),
        Registration("vqa-accuracy", f"{_HERE}.metrics.vqa_accuracy:VQAAccuracy", "official VQA accuracy, %"),
        Registration(
            "vqa-accuracy-openflamingo",
            f"{_HERE}.metrics.vqa_accuracy:OpenFlamingoVQAAccuracy",
            "VQA accuracy as OpenFlamingo's evaluation computes it, %",
        ),
        Registration("textvqa-accuracy", f"{_HERE}.metrics.vqa_accuracy:TextVQAAccuracy", "VQA accuracy of TextVQA, %"),
        Registration(
            "vizwiz-accuracy", f"{_HERE}.metrics.vqa_accuracy:VizWizAccuracy", "VQA accuracy of the VizWiz challenge, %"
        ),
        Registration(
            "aokvqa-accuracy",
            f"{_HERE}.metrics.aokvqa_accuracy:AokvqaAccuracy",
            "accuracy of A-OKVQA's direct answers, %",
        ),
        Registration(
            "vlicl-accuracy", f"{_HERE}.metrics.vlicl_accuracy:VlIclAccuracy", "accuracy by the rule of VL-ICL Bench, %"
        ),
        Registration(
            "vlicl-accuracy-fair",
            f"{_HERE}.metrics.vlicl_accuracy:FairVlIclAccuracy",
            "accuracy on VL-ICL Bench by a rule that every answer can satisfy, %",
        ),
        Registration("anls", f"{_HERE}.metrics.anls:Anls", "normalised Levenshtein similarity of read text, %"),
        Registration(
            "okvqa-accuracy",
            f"{_HERE}.metrics.okvqa_accuracy:OKVQAAccuracy",
            "VQA accuracy of stemmed answers, %",
        ),
        Registration(
            "vqa-accuracy-raw",
            f"{_HERE}.metrics.okvqa_accuracy:RawVQAAccuracy",
            "VQA accuracy against the raw answers of the annotators, %",
        ),
        Registration(
            "exact-match",
            f"{_HERE}.metrics.exact_match:ExactMatch",
            "answers that equal a reference after normalisation, %",
        ),
        Registration(
            "word-accuracy",
            f"{_HERE}.metrics.word_accuracy:WordAccuracy",
            "content words of the references that the answer contains, %",
        ),
        Registration("accuracy", f"{_HERE}.metrics.accuracy:Accuracy", "answers that equal a reference, %"),
        Registration("macro-f1", f"{_HERE}.metrics.macro_f1:MacroF1", "F1, averaged over labels, %"),
        Registration("mmmu-open", f"{_HERE}.metrics.mmmu_open:MmmuOpen", "open answers by MMMU's rule, %"),
        Registration("top-5", f"{_HERE}.metrics.top_5:TopFive", "right choices among the five best, %"),
        Registration("mean-rank", f"{_HERE}.metrics.mean_rank:MeanRank", "mean rank of the right choice; 1 is best"),
        Registration("auc", f"{_HERE}.metrics.auc:Auc", "area under the ROC curve of ranked choices, %"),
        Registration(
            "gqa-distribution",
            f"{_HERE}.metrics.gqa_distribution:GqaDistribution",
            "distance of the answers' distribution from the right one's in GQA; lower is better",
        ),
    ]


@hookimpl
def icltool_learners() -> list[Registration]:
    return [
        Registration(
            "lever-lm",
            f"{_HERE}.learners.lever_lm.learner:LeverLM",
            "Lever-LM: a small language model whose tokens are examples",
        ),
        Registration(
            "pointer",
            f"{_HERE}.learners.lever_lm.learner:Pointer",
            "Lever-LM that reads examples' embeddings and works with any index set",
        ),
        Registration("live", f"{_HERE}.learners.live.learner:Live", "learnable in-context vectors (LIVE)"),
        Registration("mimic", f"{_HERE}.learners.mimic.learner:Mimic", "learned shifts of the attention heads (MimIC)"),
        Registration("lora", f"{_HERE}.learners.lora.learner:Lora", "low-rank adapters of the self-attention (LoRA)"),
        Registration(
            "task-vector",
            f"{_HERE}.learners.task_vector:TaskVector",
            "hidden state at the end of prompts, at one layer (task vector)",
        ),
        Registration(
            "function-vector",
            f"{_HERE}.learners.function_vector:FunctionVector",
            "outputs of the most effective attention heads (function vector)",
        ),
        Registration("icv-pca", f"{_HERE}.learners.icv_pca:IcvPca", "in-context vectors by PCA (ICV)"),
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
        Registration("live", shift, "learnable in-context vectors (LIVE)", {"method": "live"}),
        Registration(
            "mimic",
            f"{_HERE}.interventions.head_shift:HeadShift",
            "shifts of the attention heads (MimIC)",
            {"method": "mimic"},
        ),
        Registration("lora", f"{_HERE}.interventions.lora:LoRA", "low-rank adapters (LoRA)", {"method": "lora"}),
        Registration("icv-pca", shift, "in-context vectors by PCA (ICV)", {"method": "icv-pca"}),
        Registration("task-vector", last, "replaced hidden state at the end of the prompt", {"method": "task-vector"}),
        Registration("function-vector", last, "added mean outputs of attention heads", {"method": "function-vector"}),
    ]


@hookimpl
def icltool_executors() -> list[Registration]:
    return [
        Registration("local", f"{_HERE}.executors.local:LocalExecutor", "this process"),
        Registration("ray", f"{_HERE}.executors.ray:RayExecutor", "several GPUs or machines, with Ray (icltool[ray])"),
    ]


@hookimpl
def icltool_commands() -> list[Registration]:
    return [Registration(name, command_target(name), summary) for name, summary in commands().items()]
