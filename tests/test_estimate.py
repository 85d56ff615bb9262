"""How many tokens a text has, about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation import estimate as room
from chatmagic.conversation.estimate import estimate

WILD = st.text(st.characters(codec=None) | st.sampled_from("\t\n\r  ab,.01\x1b\u200d\u0301\ufe0f\ud800 éß字かカ한яई🙂"))

SAMPLES = {
    "English": (
        64,
        "A p-value is the probability of seeing data at least as extreme as yours if the null hypothesis were true. "
        "It is not the probability that the hypothesis is true, and a small value says nothing about how large the "
        "effect is. Report the estimate and its interval as well, and decide about the threshold before you look.",
    ),
    "Markdown": (
        94,
        "## Installation\n\n1. Create an environment: `python -m venv .venv`\n2. Install it:\n\n```bash\npip install "
        "numpy pandas\n```\n\n| option | default | meaning |\n|---|---|---|\n| `--out` | *none* | where the result "
        "goes |\n| `--seed` | 42 | makes runs **repeatable** |\n\nSee [the guide](https://example.org/guide) "
        "for details.\n",
    ),
    "Python": (
        87,
        'def moving_average(values: list[float], window: int = 7) -> list[float]:\n    """Return the mean of each '
        'window."""\n    if window <= 0:\n        raise ValueError(f"window must be positive, not {window}")\n    '
        "sums = np.cumsum(np.insert(values, 0, 0.0))\n    return list((sums[window:] - sums[:-window]) / window)\n",
    ),
    "JavaScript": (
        68,
        "export async function loadUser(id) {\n  const response = await fetch(`/api/users/${id}`);\n  if (!response.ok)"
        " {\n    throw new Error('HTTP ' + response.status);\n  }\n  const { name, email } = await response.json();\n  "
        "return { id, name, email: email.toLowerCase() };\n}\n",
    ),
    "JSON": (
        100,
        '{"id": 1842, "name": "sensor-7", "active": true, "position": {"lat": 52.5163, "lon": 13.3777}, "readings": '
        '[21.5, 21.7, 22.04, 19.8], "tags": ["indoor", "calibrated"], "updated": "2026-03-14T09:26:53Z", "note": null}',
    ),
    "numbers": (
        93,
        "date,open,high,low,close,volume\n2026-01-05,187.15,188.44,183.89,185.64,82488700\n2026-01-06,184.22,185.88,"
        "183.43,184.25,58414500\n2026-01-07,182.15,183.09,180.88,181.91,71983600\n",
    ),
    "hashes": (
        172,
        "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9 part-0.bin\n"
        "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b part-1.bin\n"
        "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35 part-2.bin\n"
        "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce part-3.bin\n",
    ),
    "German": (
        58,
        "Der p-Wert ist die Wahrscheinlichkeit, unter der Nullhypothese ein mindestens so extremes Ergebnis zu "
        "beobachten. Er sagt nicht, wie wahrscheinlich die Hypothese ist, und ein kleiner Wert bedeutet noch keinen "
        "großen Unterschied. Geben Sie deshalb auch das Konfidenzintervall an.",
    ),
    "French": (
        54,
        "La valeur p est la probabilité d'observer un résultat au moins aussi extrême si l'hypothèse nulle était vraie."
        " Elle ne dit pas si l'hypothèse est vraie, et une petite valeur ne signifie pas que l'effet est grand.",
    ),
    "Polish": (
        60,
        "Wartość p to prawdopodobieństwo uzyskania wyniku co najmniej tak skrajnego, jeśli hipoteza zerowa jest "
        "prawdziwa. Nie mówi ona, czy hipoteza jest prawdziwa, a mała wartość nie oznacza dużego efektu.",
    ),
    "Turkish": (
        78,
        "Bu değer, sıfır hipotezi doğru olduğunda en az bu kadar uç bir sonuç görme olasılığıdır. Hipotezin doğru olup "
        "olmadığını söylemez ve küçük bir değer, etkinin büyük olduğu anlamına gelmez. Bu yüzden sonucu yazarken güven "
        "aralığını da belirtin ve verilere bakmadan önce hangi eşiği kullanacağınıza karar verin.",
    ),
    "Vietnamese": (
        43,
        "Giá trị này là xác suất quan sát được kết quả ít nhất cũng cực đoan như vậy nếu giả thuyết ban đầu là đúng. "
        "Nó không cho biết giả thuyết có đúng hay không.",
    ),
    "Russian": (
        48,
        "Это вероятность получить результат не менее крайний, чем наблюдаемый, если нулевая гипотеза верна. Она не "
        "говорит о том, верна ли гипотеза, и малое значение не означает, что эффект велик.",
    ),
    "Greek": (
        47,
        "Είναι η πιθανότητα να παρατηρηθεί ένα αποτέλεσμα τουλάχιστον τόσο ακραίο, αν η μηδενική υπόθεση είναι αληθής. "
        "Δεν λέει αν η υπόθεση είναι αληθής.",
    ),
    "Arabic": (
        49,
        "هي احتمال الحصول على نتيجة متطرفة على الأقل مثل النتيجة الملاحظة إذا كانت الفرضية صحيحة. وهي لا تقول إن كانت "
        "الفرضية صحيحة أم لا، والقيمة الصغيرة لا تعني أن التأثير كبير.",
    ),
    "Hebrew": (
        50,
        "זוהי ההסתברות לקבל תוצאה קיצונית לפחות כמו זו שנצפתה אם השערת האפס נכונה. היא אינה אומרת אם ההשערה נכונה, "
        "וערך קטן אינו אומר שהאפקט גדול.",
    ),
    "Hindi": (
        53,
        "यह उस परिणाम के मिलने की संभावना है जो कम से कम उतना ही चरम हो, यदि मूल परिकल्पना सही हो। यह नहीं बताता कि परिकल्पना "
        "सही है या नहीं, और छोटा मान बड़े प्रभाव का अर्थ नहीं है।",
    ),
    "Thai": (
        56,
        "ค่านี้คือความน่าจะเป็นที่จะได้ผลลัพธ์ที่รุนแรงอย่างน้อยเท่ากับที่สังเกตได้ ถ้าสมมติฐานหลักเป็นจริง ไม่ได้บอกว่าสมมติฐานเป็นจริงหรือไม่",
    ),
    "Chinese": (
        54,
        "这个值表示在原假设成立的情况下，得到至少同样极端的结果的概率。它并不说明假设是否为真，数值小也不意味着效应大。"
        "因此还应该报告估计值和置信区间。",
    ),
    "Japanese": (
        70,
        "この値は、帰無仮説が正しいときに、観測された結果と同じくらい極端な結果が得られる確率です。仮説が正しいかどうかを示すもの"
        "ではなく、値が小さくても効果が大きいとは限りません。",
    ),
    "Korean": (
        91,
        "이 값은 귀무가설이 참일 때 관측된 결과만큼 극단적인 결과를 얻을 확률입니다. 가설이 참인지 아닌지를 말해 주지 "
        "않으며, 값이 작다고 해서 효과가 크다는 뜻은 아닙니다. 따라서 결과를 보고할 때는 추정값과 "
        "신뢰구간을 함께 적고, 자료를 보기 전에 기준을 정해 두는 것이 좋습니다.",
    ),
    "emoji": (38, "Done ✅ 🚀\n\n- 📊 results are in 🎉\n- ⚠️ two warnings 😅\n- 🔥 it is fast\n- 🙏 thank you 😀😂\n"),
}
"""Texts, and how many tokens o200k_base makes of them."""


@pytest.mark.parametrize("kind", SAMPLES)
def test_estimate_is_near(kind: str) -> None:
    """A short text is estimated within a tenth, or a little more where words are long and unknown."""
    exact, text = SAMPLES[kind]

    assert estimate(text) == pytest.approx(exact, rel=0.15 if kind == "Turkish" else 0.1)


def test_all_of_them_together() -> None:
    """Errors even out over a text that holds many kinds."""
    exact = sum(count for count, _ in SAMPLES.values())

    assert estimate("\n".join(text for _, text in SAMPLES.values())) == pytest.approx(exact, rel=0.05)


def test_nothing_has_no_tokens() -> None:
    """Zero means zero."""
    assert estimate("") == 0


@given(WILD)
def test_bounds(text: str) -> None:
    """Whatever the text, it has a token or more if it is not empty, and never more than bytes."""
    assert bool(text) <= estimate(text) <= len(text.encode("utf-8", "surrogatepass"))


@given(WILD, WILD)
def test_two_texts_are_about_as_long_as_both(one: str, two: str) -> None:
    """Each is priced in its own language alone, so together they may differ, but not by much."""
    apart = estimate(one) + estimate(two)

    assert apart / 3 - 5 <= estimate(one + two) <= 3 * apart + 5


@given(WILD)
def test_every_character_is_in_one_piece(text: str) -> None:
    """The text is cut without a gap, so nothing of it is free by mistake."""
    assert "".join(room._pattern().findall(text)) == text


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "A",
        "aA",
        "Aa1",
        "a1",
        "1",
        "é",
        "ż",
        " ",
        " \n",
        "!",
        " !",
        "!?",
        "字",
        "я",
        "🙂",
        "\u0301",
        "\u200d",
        "\ud800",
    ],
)
def test_hostile_texts(unit: str) -> None:
    """A hundred thousand of anything in a row are worth a hundred times a thousand of it, in bounded time."""
    thousand, many = estimate(unit * 1_000), estimate(unit * 100_000)

    assert many == pytest.approx(100 * thousand, rel=0.1, abs=200)
