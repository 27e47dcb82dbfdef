"""The demo's classes: plain names over Unicode's emoji sub-groups, with the looser words that captions use."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class DemoClass:
    """One class: its name, the sub-groups it draws from, filters on the label, and category words for captions."""

    name: str
    subgroups: tuple[str, ...]
    words: tuple[str, ...]
    only: str = ""
    without: str = r"(?!)"

    def holds(self, subgroup: str, label: str) -> bool:
        """Say whether an emoji belongs to this class."""
        return (
            subgroup in self.subgroups
            and re.search(self.only, label) is not None
            and re.search(self.without, label) is None
        )


def _row(name: str, subgroups: str, words: str, only: str = "", without: str = r"(?!)") -> DemoClass:
    return DemoClass(name, tuple(subgroups.split()), tuple(words.split(", ")), only, without)


GROUPS = (
    _row(
        "happy face",
        "face-smiling face-affection face-tongue face-glasses",
        "smiling, happy smile, face affection",
        without="tear|monocle|melting",
    ),
    _row("sad face", "face-concerned", "unhappy, worried face, face concerned", without="yawning|flushed"),
    _row("sick face", "face-unwell face-sleepy", "unwell, ill face, tired", without="exploding|relieved|pensive"),
    _row("heart", "heart", "love, heart emotion", without="letter"),
    _row(
        "hand gesture",
        "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands",
        "hand, fingers, hand sign",
    ),
    _row(
        "person at work",
        "person-role",
        "worker, job, profession, occupation",
        only="worker|student|teacher|judge|farmer|cook|mechanic|scientist|technologist|singer|artist|pilot|astronaut"
        "|firefighter|police|detective|guard",
    ),
    _row("fantasy character", "person-fantasy face-costume", "fantasy, fairy tale, monster", without="poo|robot|Claus"),
    _row("person doing sport", "person-sport", "athlete, sport activity, person sport"),
    _row("mammal", "animal-mammal", "animal, mammal animal, furry animal", without="paw|nose"),
    _row("bird", "animal-bird", "animal, bird animal, feathered animal", without="feather|wing"),
    _row("sea animal", "animal-marine", "marine, ocean animal, sea life", without="coral"),
    _row("reptile", "animal-reptile animal-amphibian", "animal, reptile animal, amphibian"),
    _row("insect", "animal-bug", "bug, small animal, animal bug", without="web|microbe"),
    _row("flower", "plant-flower", "plant, blossom, plant flower"),
    _row("plant", "plant-other", "nature, leaves, plant other", without="nest|mushroom"),
    _row("fruit", "food-fruit", "food, food fruit, sweet food from a tree"),
    _row("vegetable", "food-vegetable", "food, food vegetable, greens"),
    _row("meal", "food-prepared food-asian", "food, dish, cooked food, food prepared", without="salt|butter"),
    _row("dessert", "food-sweet", "food, sweets, food sweet"),
    _row("drink", "drink", "beverage, liquid, drinking", without="^ice$"),
    _row(
        "building",
        "place-building place-religious",
        "architecture, house, place building",
        without="wood|rock|brick|kaaba|Liberty",
    ),
    _row(
        "landscape",
        "place-geographic place-other",
        "scenery, view, place",
        only="mount|landslide|volcano|camping|beach|desert|park|foggy|night|city|sun|bridge|spring",
    ),
    _row(
        "train",
        "transport-ground",
        "railway, rail vehicle, public transport",
        only="locomotive|railway car|train|metro|rail|tram|station",
        without="track",
    ),
    _row(
        "car or truck",
        "transport-ground",
        "road vehicle, motor vehicle, automobile",
        only="bus|ambulance|engine|police car|taxi|automobile|vehicle|truck|lorry|tractor|racing car|rickshaw",
        without="stop|light",
    ),
    _row("aircraft", "transport-air", "air transport, flying machine", without="seat|railway|cableway|tramway"),
    _row("clock", "time", "time, hour", without="hourglass"),
    _row("moon", "sky-weather", "sky, lunar phase", only="moon"),
    _row(
        "weather",
        "sky-weather",
        "forecast, sky, climate",
        only="cloud|sun$|tornado|fog|wind|cyclone|rainbow|umbrella|snow|thermometer|high voltage|droplet|sun with",
    ),
    _row("party decoration", "event", "celebration, festival, holiday event", without="ticket|ribbon"),
    _row("sports equipment", "sport", "sport, athletics, ball game"),
    _row("toy or game", "game", "playing, leisure, entertainment"),
    _row(
        "clothes",
        "clothing",
        "clothing, wear, fashion",
        only="coat|vest|tie|shirt|jeans|scarf|gloves|socks|dress|kimono|sari|swimsuit|briefs|shorts|bikini|clothes|uniform",
    ),
    _row("shoe", "clothing", "footwear, clothing", only="shoe|boot|sandal"),
    _row("musical instrument", "musical-instrument", "music, playing music, orchestra"),
    _row(
        "electronic device",
        "phone computer light-video",
        "electronics, technology, gadget",
        only="phone|pager|fax|battery|laptop|computer|printer|keyboard|mouse|trackball|camera|television|projector|radio",
        without="receiver",
    ),
    _row("book", "book-paper", "paper, reading, publication", without="label|roll"),
    _row("money", "money", "finance, cash, payment", without="chart"),
    _row("mail", "mail", "post, letter, delivery", without="ballot"),
    _row("office supplies", "office writing", "stationery, business, paperwork", without="wastebasket"),
    _row("tool", "tool", "hardware, work, repair", without="dagger|swords|bomb|boomerang|bow|shield|scale|cane"),
    _row("science equipment", "science medical", "laboratory, medicine, research"),
    _row("furniture or household item", "household", "home, bathroom, living room", without="cart"),
    _row("arrow", "arrow", "direction, pointing", only="arrow"),
    _row("zodiac sign", "zodiac", "astrology, horoscope, star sign"),
    _row("media button", "av-symbol", "audio video control, player symbol", only="button"),
    _row("warning sign", "warning", "danger, forbidden, prohibition"),
    _row("religious symbol", "religion", "religion, faith"),
    _row("geometric shape", "geometric", "shape, geometry"),
)


TOO_SMALL = frozenset(
    (
        "sick face",
        "reptile",
        "flower",
        "plant",
        "train",
        "aircraft",
        "moon",
        "shoe",
        "musical instrument",
        "book",
        "money",
        "mail",
        "science equipment",
        "zodiac sign",
        "warning sign",
        "religious symbol",
    )
)  # groups whose words captions may use, with too few pictures for support, validation and test
DEMO_CLASSES = tuple(group for group in GROUPS if group.name not in TOO_SMALL)


def demo_group(subgroup: str, label: str) -> int:
    """Return the index of the group an emoji belongs to, or -1."""
    return next((i for i, g in enumerate(GROUPS) if g.holds(subgroup, label)), -1)


def demo_class(subgroup: str, label: str) -> int:
    """Return the index of the class an emoji belongs to, or -1."""
    group = demo_group(subgroup, label)
    return DEMO_CLASSES.index(GROUPS[group]) if group >= 0 and GROUPS[group] in DEMO_CLASSES else -1
