"""The metrics are scikit-learn's numbers, and evaluate accepts them."""

import multiprocessing

import datasets
import evaluate
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from transformers import ViTImageProcessor, pipeline

from hf_swin import metrics as ours

from tiny import model_of


CLASSES = 6


def answers(seed, count=200, ties=False, absent=()):
    """Probabilities, float32 as evaluate keeps them, and true classes; `ties` rounds, `absent` classes never occur."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(CLASSES), count)
    if ties:
        probabilities = np.round(4 * probabilities) / 4
    present = [number for number in range(CLASSES) if number not in absent]
    return probabilities.astype(np.float32), generator.choice(present, count)


CASES = {
    "seed 0": answers(0),
    "seed 1": answers(1),
    "ties": answers(2, ties=True),
    "absent": answers(3, absent=(1, 5)),
    "few": answers(4, count=3),
}


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


def value_of(metric, probabilities, truth):
    (value,) = metric.compute(predictions=probabilities, references=truth).values()
    return value


@pytest.mark.parametrize("as_numbers", [False, True], ids=["probabilities", "class numbers"])
def test_what_class_numbers_decide_is_scikit_learn(case, as_numbers):
    probabilities, truth = case
    guess = probabilities.argmax(1)
    given = guess if as_numbers else probabilities
    assert value_of(ours.Accuracy(), given, truth) == sk.accuracy_score(truth, guess)
    assert value_of(ours.MacroF1(), given, truth) == pytest.approx(sk.f1_score(truth, guess, average="macro"))
    balanced = np.mean([(guess == truth)[truth == number].mean() for number in np.unique(truth)])
    assert value_of(ours.BalancedAccuracy(), given, truth) == pytest.approx(balanced)
    numbers = range(max(guess.max(), truth.max()) + 1 if as_numbers else CLASSES)
    matrix = sk.confusion_matrix(truth, guess, labels=numbers)
    assert value_of(ours.ConfusionMatrix(), given, truth) == matrix.tolist()
    with np.errstate(invalid="ignore"):
        recall = np.diag(matrix) / matrix.sum(1)
    np.testing.assert_allclose(value_of(ours.PerClassRecall(), given, truth), recall)


def test_balanced_accuracy_is_scikit_learn_where_it_does_not_warn():
    probabilities, truth = CASES["seed 0"]
    expected = sk.balanced_accuracy_score(truth, probabilities.argmax(1))
    assert value_of(ours.BalancedAccuracy(), probabilities, truth) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_scikit_learn(case, k):
    probabilities, truth = case
    expected = sk.top_k_accuracy_score(truth, probabilities, k=k, labels=range(CLASSES))
    scores = ours.TopK(k=k).compute(predictions=probabilities, references=truth)
    assert scores == {f"top_{k}_accuracy": pytest.approx(expected)}


def test_calibration_error_is_what_scikit_learn_draws(case):
    probabilities, truth = case
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    shares, means = calibration_curve(right, confidence, n_bins=15)
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, 16)[1:-1], confidence), minlength=15)
    counts = counts[counts > 0]
    expected = (counts * np.abs(shares - means)).sum() / len(truth)
    assert value_of(ours.ExpectedCalibrationError(), probabilities, truth) == pytest.approx(expected, abs=1e-7)


def test_calibration_error_worked_by_hand():
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    # Bin of 0.9: two of three right, |2/3 - 0.9| * 3/4; bin of 0.6: right, 0.4 * 1/4.
    assert value_of(ours.ExpectedCalibrationError(), sure, [0, 0, 1, 1]) == pytest.approx(0.175 + 0.1)


def label_sets(seed, absent=()):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 2, (150, CLASSES))
    truth[:, list(absent)] = 0
    return np.clip(0.4 * truth + generator.uniform(0, 0.8, truth.shape), 0, 1).astype(np.float32), truth


@pytest.mark.parametrize("seed", range(3))
def test_label_sets_are_scikit_learn(seed):
    probabilities, truth = label_sets(seed)
    given = probabilities > 0.5
    scores = ours.image_metrics(CLASSES, multi_label=True).compute(predictions=probabilities, references=truth)
    assert scores == {
        "macro_f1": pytest.approx(sk.f1_score(truth, given, average="macro")),
        "micro_f1": pytest.approx(sk.f1_score(truth, given, average="micro")),
        "mean_average_precision": pytest.approx(sk.average_precision_score(truth, probabilities)),
        "exact_match": pytest.approx(sk.accuracy_score(truth, given)),
    }
    assert 0 < scores["exact_match"] < scores["micro_f1"] < 1


def test_mean_average_precision_leaves_labels_without_images_out():
    probabilities, truth = label_sets(0, absent=(2,))
    present = [0, 1, 3, 4, 5]
    expected = sk.average_precision_score(truth[:, present], probabilities[:, present])
    assert value_of(ours.MeanAveragePrecision(), probabilities, truth) == pytest.approx(expected)
    assert np.isnan(value_of(ours.MeanAveragePrecision(), probabilities, 0 * truth))


def test_worked_by_hand():
    both = evaluate.combine([ours.Accuracy(), ours.MacroF1()])
    scores = both.compute(predictions=[0, 1, 2, 2], references=[0, 1, 2, 1])
    # F1 of the classes: 1, 2/3, 2/3.
    assert scores == {"accuracy": 0.75, "macro_f1": pytest.approx(7 / 9)}


def test_top_5_is_asked_only_where_it_can_be_wrong():
    assert "top_5_accuracy" not in ours.image_metrics(5).compute(predictions=np.eye(5), references=range(5))
    scores = ours.image_metrics(6).compute(predictions=np.eye(6), references=range(6))
    keys = ["accuracy", "top_5_accuracy", "macro_f1", "balanced_accuracy", "expected_calibration_error"]
    assert list(scores) == keys and scores["top_5_accuracy"] == 1


@pytest.mark.parametrize("in_memory", [True, False])
def test_batches_add_up_and_nothing_is_left_for_the_next_time(in_memory, tmp_path):
    probabilities, truth = CASES["seed 0"]
    metric = ours.MacroF1(keep_in_memory=in_memory, cache_dir=str(tmp_path))
    for _ in range(2):
        for start in (0, 150):
            metric.add_batch(predictions=probabilities[start : start + 150], references=truth[start : start + 150])
        expected = sk.f1_score(truth, probabilities.argmax(1), average="macro")
        assert metric.compute()["macro_f1"] == pytest.approx(expected)
    metric.add(prediction=probabilities[0], reference=truth[0])
    assert metric.compute()["macro_f1"] in (0, 1)


def one_process(number, folder, results):
    probabilities, truth = CASES["seed 0"]
    metric = ours.BalancedAccuracy(num_process=2, process_id=number, cache_dir=folder, experiment_id="two")
    part = slice(number, None, 2)
    results.put(metric.compute(predictions=probabilities[part], references=truth[part]))


def test_two_processes_make_one_score(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=one_process, args=(number, str(tmp_path), results)) for number in (0, 1)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    probabilities, truth = CASES["seed 0"]
    expected = sk.balanced_accuracy_score(truth, probabilities.argmax(1))
    assert None in found and {"balanced_accuracy": pytest.approx(expected)} in found


@pytest.mark.parametrize("metric", ours.ClassificationMetric.__subclasses__(), ids=lambda metric: metric.name)
def test_every_metric_loads_by_its_path(metric):
    loaded = evaluate.load(ours.__file__, metric.name)
    several = metric in (ours.MicroF1, ours.MeanAveragePrecision, ours.ExactMatch)
    inputs = label_sets(1) if several else CASES["seed 1"]
    both = [one.compute(predictions=inputs[0], references=inputs[1]) for one in (loaded, metric())]
    assert both[0] == both[1] and type(loaded).__name__ == metric.__name__


def test_loading_by_path_knows_a_default_options_and_mistakes():
    assert evaluate.load(ours.__file__).compute(predictions=[0, 1], references=[0, 0]) == {"accuracy": 0.5}
    top = evaluate.load(ours.__file__, "top_k_accuracy", k=2)
    assert top.compute(predictions=[[0.1, 0.2, 0.7]], references=[1]) == {"top_2_accuracy": 1}
    with pytest.raises(ValueError, match=r"no metric 'f2': choose one of accuracy, top_k_accuracy, macro_f1"):
        evaluate.load(ours.__file__, "f2")
    with pytest.raises(ValueError, match="k is 1 or more"):
        ours.TopK(k=0)


def test_the_evaluator_of_evaluate_takes_our_models_and_pipelines():
    labels = ["a", "b", "c", "d", "e"]
    model = model_of("hf_vit", id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)})
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    images = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 30, 3), np.uint8)) for i in range(6)]
    data = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 2, 3, 4, 0]})
    data = data.cast_column("image", datasets.Image())
    pipe = pipeline("image-classification", model=model, image_processor=processor)
    mapping = {name: 4 - number for number, name in enumerate(labels)}  # the data may number its labels otherwise
    guess = [mapping[best[0]["label"]] for best in pipe(images)]
    expected = sk.accuracy_score(data["label"][:], guess)
    found = ours.ImageEvaluator().compute(pipe, data, label_mapping=mapping)
    assert found["accuracy"] == expected
    options = {"feature_extractor": processor, "label_mapping": mapping, "metric": ours.MacroF1()}
    strategy = {"strategy": "bootstrap", "n_resamples": 9, "random_state": 0}
    found = evaluate.evaluator("image-classification").compute(model, data, **options, **strategy)["macro_f1"]
    assert found["score"] == pytest.approx(sk.f1_score(data["label"][:], guess, average="macro", zero_division=0))
    assert len(found["confidence_interval"]) == 2
