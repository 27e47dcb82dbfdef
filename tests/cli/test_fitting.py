"""What a fit says of itself before it begins."""

from daptune.cli.fitting import training_text
from daptune.train import TrainConfig


def test_the_length_of_a_run_is_told_with_its_first_stage() -> None:
    both = TrainConfig(epoch_shots=16, sampling="balanced").resolved(2, text_first=True)
    assert training_text(both) == (
        "adamw, learning rate 0.01, 200 steps of the text prompt, then 16 epochs of at most 16 images a class "
        "(classes drawn evenly), batches of 32, cosine"
    )
    given = TrainConfig(epochs=50, optimizer="sgd", schedule="cosine_per_epoch", batch_size=4).resolved(2)
    assert training_text(given) == "sgd, learning rate 0.002, 50 epochs, batches of 4, cosine per epoch"
