"""Convert a discriminator as transformers 4 does: `python -m benchmarks.peer CHECKPOINT SIZE OUT`."""

from __future__ import annotations

import sys

from benchmarks.checkpoints import PREFIX, SIZES


def main() -> None:
    """Load a checkpoint of TensorFlow into a PyTorch model, and save the model."""
    from transformers import ElectraConfig, ElectraForPreTraining
    from transformers.models.electra.modeling_electra import load_tf_weights_in_electra

    checkpoint, size, out = sys.argv[1:]
    ours = SIZES[size]["discriminator"]
    fields = ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    config = ElectraConfig(
        intermediate_size=ours.intermediate_size, **{field: getattr(ours, field) for field in fields}
    )
    model = ElectraForPreTraining(config)
    load_tf_weights_in_electra(model, config, f"{checkpoint}/{PREFIX}", discriminator_or_generator="discriminator")
    model.save_pretrained(out)


if __name__ == "__main__":
    main()
