"""Writes the schemas of the resources that `terraform/` uses, as the providers define them.

    python extract.py FOLDER

FOLDER has the unpacked npm packages `@cdktf/provider-aws`, `-google` and `-helm` in `aws/package`,
`google/package` and `helm/package`. They are generated from the providers' own schemas: each class
lists every argument and attribute with its type, and whether it is computed, optional or required.
What comes out has the form of `terraform providers schema -json`, cut to the resources in
`resources.json`:

    for name in aws google helm; do
        npm pack @cdktf/provider-$name && mkdir $name && tar xzf cdktf-provider-$name-*.tgz -C $name
    done

What the packages do not keep: descriptions; whether a nested structure is a block or an attribute that
holds objects (it is a block here; nothing in `terraform/` uses the other form); whether the provider
chooses a value for an optional argument that is not given (here it always may).
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SCALARS = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}
GETTERS = {
    "getStringAttribute": "string",
    "getNumberAttribute": "number",
    "getBooleanAttribute": "bool",
    "getListAttribute": ["list", "string"],
    "getNumberListAttribute": ["list", "number"],
    "getStringMapAttribute": ["map", "string"],
    "getBooleanMapAttribute": ["map", "bool"],
    "getNumberMapAttribute": ["map", "number"],
    "getAnyMapAttribute": ["map", "dynamic"],
    "interpolationForAttribute": "dynamic",
}
MAPS = {"StringMap": "string", "BooleanMap": "bool", "NumberMap": "number", "AnyMap": "dynamic"}

CLASS = re.compile(r"^class (\w+) extends cdktf\.(\w+) \{\n(.*?)^\}", re.M | re.S)
TO_HCL = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}", re.M | re.S)
FLAGS = re.compile(
    r"// (\w+) - computed: (\w+), optional: (\w+), required: (\w+)\n"
    r"\s*(?:get \w+\(\) \{\s*return (?P<getter>[^;]*);"
    r'|this\._\w+ = new (?P<made>[\w.]+)\(this, "\w+"(?:, (?P<is_set>\w+))?\))'
)
ARGUMENT = re.compile(
    r'^\s*(\w+): \{\s*value: [^\n]*\((?:struct\.|this\._)(\w+)[^\n]*\n\s*isBlock: (true|false),\s*type: "(\w+)",\s*storageClassType: "(\w+)"', re.M
)


@dataclass
class Argument:
    property: str
    is_block: bool
    nesting: str
    storage: str


class Module:
    """One generated file: a resource, data source or provider with its nested structures."""

    def __init__(self, path: Path) -> None:
        text = path.read_text()
        self.types = path.with_suffix(".d.ts").read_text()
        self.classes = {name: (base, body) for name, base, body in CLASS.findall(text)}
        self.names = {name.removesuffix("OutputReference") for name in self.classes if name.endswith("OutputReference")}
        self.to_hcl = {name.lower(): body for name, body in TO_HCL.findall(text)}

    def block(self, name: str) -> dict:
        """The block of a resource, given the name of its class or structure."""
        body = self.classes[name][1] if name in self.classes else self.structure(name)
        arguments = self.arguments(name, body)
        attributes, blocks = {}, {}
        for found in FLAGS.finditer(body):
            key, computed, optional, required = found.groups()[:4]
            argument = arguments.get(key)
            if argument and argument.is_block:
                blocks[key] = self.nested(argument, required == "true", found["made"] or "")
                continue
            kind = self.type_of(found, argument)
            if kind is None:
                continue
            flags = {"computed": computed, "optional": optional, "required": required}
            attributes[key] = {"type": kind} | {flag: True for flag, value in flags.items() if value == "true"}
        # What is set as it is has no such line; its interface tells what is required.
        for key in arguments.keys() - attributes.keys() - blocks.keys():
            argument = arguments[key]
            required = self.is_required(name, argument)
            if argument.is_block:
                blocks[key] = self.nested(argument, required)
            else:
                flags = {"required": True} if required else {"optional": True, "computed": True}
                attributes[key] = {"type": self.type_of(None, argument)} | flags
        return {"attributes": attributes} | ({"block_types": blocks} if blocks else {})

    def provider(self, name: str, body: str) -> dict:
        """The block of a provider, whose class says nothing beyond types: all of it is optional."""
        attributes, blocks = {}, {}
        for key, argument in self.arguments(name, body).items():
            if argument.is_block:
                nesting = "list" if argument.nesting == "struct" else argument.nesting
                nested = self.provider(argument.storage.removesuffix("List"), "")
                blocks[key] = {"nesting_mode": nesting, "block": nested}
            else:
                attributes[key] = {"type": self.type_of(None, argument), "optional": True}
        return {"attributes": attributes} | ({"block_types": blocks} if blocks else {})

    def is_required(self, name: str, argument: Argument) -> bool:
        found = re.search(rf"^export interface {name}(?:Config)? [^\n]*\{{\n(.*?)^\}}", self.types, re.M | re.S)
        return re.search(rf"readonly {argument.property}(\??):", found[1])[1] == ""

    def structure(self, name: str) -> str:
        return self.classes[f"{name}OutputReference"][1]

    def arguments(self, name: str, body: str) -> dict[str, Argument]:
        """What can be set, by its name."""
        text = self.to_hcl.get(name.lower()) or body.partition("synthesizeHclAttributes")[2]
        return {
            key: Argument(name_here, is_block == "true", nesting, storage)
            for key, name_here, is_block, nesting, storage in ARGUMENT.findall(text)
        }

    def nested(self, argument: Argument, required: bool, made: str = "") -> dict:
        single = argument.nesting == "struct" or made.endswith("OutputReference")
        name = argument.storage if argument.storage in self.names else argument.storage.removesuffix("List")
        nesting = argument.nesting
        if single:
            # The place in a list is there where the provider has a list of at most one.
            is_list = re.search(r"super\(terraformResource, terraformAttribute, \w+, 0\)", self.structure(name))
            nesting = "list" if is_list else "single"
        block = {"nesting_mode": nesting, "block": self.block(name)}
        if nesting == "single":
            return block
        if required:
            block["min_items"] = 1
        if single:
            block["max_items"] = 1
        return block

    def type_of(self, found: re.Match | None, argument: Argument | None):
        """The type of an attribute; none if this match does not tell, and another does."""
        if argument:
            element = SCALARS[re.sub("(List|Map)$", "", argument.storage)]
            if argument.storage.endswith("MapList"):
                element = ["map", SCALARS[argument.storage.removesuffix("MapList")]]
            return element if argument.nesting == "simple" else [argument.nesting, element]
        if made := found["made"]:
            if made.startswith("cdktf."):
                kind = made.removeprefix("cdktf.")
                if kind.endswith("MapList"):
                    return ["list", ["map", MAPS[kind.removesuffix("List")]]]
                return ["map", MAPS[kind]]
            if made.endswith("OutputReference"):
                return self.object(made)
            element = self.object(made.removesuffix("List") + "OutputReference")
            return ["set" if found["is_set"] == "true" else "list", element]
        getter = re.search(r"this\.(\w+)\(", found["getter"])
        if not getter:
            return None
        kind = GETTERS[getter[1]]
        return ["set", kind[1]] if "Fn.tolist" in found["getter"] else kind

    def object(self, name: str) -> list:
        fields = {}
        for found in FLAGS.finditer(self.classes[name][1]):
            kind = self.type_of(found, None)
            if kind is not None:
                fields[found[1]] = kind
        return ["object", fields]

    def main(self) -> str:
        bases = {"TerraformResource", "TerraformDataSource", "TerraformProvider"}
        (name,) = [name for name, (base, _) in self.classes.items() if base in bases]
        return name


def schema(folder: Path, name: str) -> dict:
    module = Module(folder / name / "index.js")
    main = module.main()
    base, body = module.classes[main]
    block = module.provider(main, body) if base == "TerraformProvider" else module.block(main)
    return {"version": 0, "block": block}


def version(folder: Path) -> str:
    return re.search(r"providerVersion: '([\d.]+)'", (folder / "provider" / "index.js").read_text())[1]


def main(folder: Path) -> None:
    for provider, wanted in json.loads((HERE / "resources.json").read_text()).items():
        library = folder / provider / "package" / "lib"
        short = lambda name: name.removeprefix(f"{provider}_").replace("_", "-")
        extract = {
            "provider_version": version(library),
            "provider": schema(library, "provider"),
            "resource_schemas": {name: schema(library, short(name)) for name in wanted["resources"]},
            "data_source_schemas": {name: schema(library, f"data-{provider}-{short(name)}") for name in wanted["data"]},
        }
        text = json.dumps(extract, separators=(",", ":"), sort_keys=True)
        (HERE / f"{provider}.json").write_text(text.replace('"block":{', '\n"block":{') + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
