"""A page with one upload and the classes of an adapter, most likely first."""

import gradio

import daptune

classifier = daptune.load("adapter")


def classify(image):
    """Probabilities by class, as gradio's Label takes them; nothing without a picture."""
    if image is None:
        return {}
    shares = classifier.predict_proba([image])[0]
    return dict(zip(map(str, classifier.classes_), shares.tolist(), strict=True))


page = gradio.Interface(
    fn=classify,
    inputs=gradio.Image(type="pil"),
    outputs=gradio.Label(num_top_classes=3),
    title="Which of " + ", ".join(map(str, classifier.classes_)) + "?",
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
