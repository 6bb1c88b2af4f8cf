# The images, included by the Makefile.
#   make images            mnist-tf and mnist-torch; MNIST is downloaded during the build
#   make images DATA=DIR   MNIST is copied from the IDX files (gz or raw) in DIR
#   make images PLATFORM=linux/arm64   for another processor than this machine's; mnist-torch only
#   make test-images       builds them and mnist-merge, then tests them
#   make oci               the images as a release publishes them, in build/oci; the same commit gives the same digests
#   make reproduce         builds each of them twice and compares the digests
#   make attest KEY=FILE   signs the bill of materials and provenance; make verify KEY=FILE verifies both

DOCKER ?= docker
, := ,
IMAGES := mnist-tf mnist-torch
# TensorFlow publishes no CUDA wheels for arm64.
AMD64_ONLY := mnist-tf
# Needed only by clusters that merge on a shared volume (k8s/overlays/merge).
MERGE_IMAGE := mnist-merge
override IMAGE_VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' jobs/__init__.py)
override IMAGE_GIT_SHA = $(shell git rev-parse HEAD 2>/dev/null)$(shell test -z "$$(git status --porcelain 2>/dev/null)" || echo -dirty)
# The commit's time: the images' own time, and the latest that a file in them can have.
IMAGE_EPOCH = $(or $(shell git log -1 --format=%ct 2>/dev/null),0)

# As in the Makefile: values reach the commands through the environment.
override DATA := $(value DATA)
override IMAGE_BASE := $(or $(value IMAGE_BASE),python:3.13-slim-trixie)
override IMAGE_TAG := $(or $(value IMAGE_TAG),$(IMAGE_VERSION))
override KEY := $(value KEY)
override MNIST_MIRRORS := $(value MNIST_MIRRORS)
override PLATFORM := $(or $(value PLATFORM),linux/$(patsubst aarch64,arm64,$(patsubst x86_64,amd64,$(shell uname -m))))
override REGISTRY := $(value REGISTRY)
override TAG := $(value TAG)
export DATA IMAGE_BASE IMAGE_TAG KEY MNIST_MIRRORS PLATFORM REGISTRY TAG

# Options for every build, such as --add-host or --build-context.
BUILD_OPTIONS ?=
# BuildKit in a version of its own, because the version decides on an image's exact bytes. Made when it is missing.
BUILDER ?= mnist-jobs
BUILDKIT := moby/buildkit:v0.34.2
# How layers are packed. zstd is several times as fast; Docker reads it from version 23 on.
COMPRESSION ?= gzip

# Each image's maximum size in GB (10^9 bytes), and the extra that it contains.
budget_gb_mnist-tf := 6.0
budget_gb_mnist-torch := 5.6
budget_gb_mnist-merge := 0.6
extra_mnist-tf := tf-cuda
extra_mnist-torch := torch
extra_mnist-merge := compare

ALL_IMAGES := $(IMAGES) $(MERGE_IMAGE)
REFUSED := $(if $(filter linux/amd64,$(PLATFORM)),,$(AMD64_ONLY))
BUILT := $(filter-out $(REFUSED),$(IMAGES))
ALL_BUILT := $(filter-out $(REFUSED),$(ALL_IMAGES))
NO_CUDA = TensorFlow publishes CUDA wheels only for amd64. Build mnist-torch instead, or use PLATFORM=linux/amd64

.PHONY: images image-values sbom test-images oci builder reproduce test-attestations attest verify registry push-images publish-indexes release-notes
.PHONY: $(foreach way,image oci reproduce publish,$(ALL_IMAGES:%=$(way)-%))

images: $(BUILT:%=image-%) ## build both images and check their size; DATA=DIR copies MNIST from a folder
	@$(foreach image,$(BUILT),$(call check_size,$(image)) &&) true
	@$(foreach image,$(filter $(REFUSED),$(IMAGES)),printf '%-24s not built for %s: %s\n' $(image) "$$PLATFORM" "$(NO_CUDA)";)

$(foreach way,image oci reproduce publish,$(REFUSED:%=$(way)-%)): image-values
	@printf 'error: mnist-tf cannot be built for %s: %s\n' "$$PLATFORM" "$(NO_CUDA)" >&2; exit 2

# Checked before anything is copied or built: a command could read the value as an option, or Docker would refuse it.
image-values:
	@refuse() { printf 'error: %s\n' "$$1" >&2; exit 2; }; \
	case "$$DATA" in -*) refuse "DATA=$$DATA begins with -; write ./$$DATA if that is the folder's name" ;; esac; \
	case "$$MNIST_MIRRORS" in -*) refuse "MNIST_MIRRORS=$$MNIST_MIRRORS begins with -; give web addresses" ;; esac; \
	case "$$IMAGE_TAG" in [!A-Za-z0-9_]* | *[!A-Za-z0-9_.-]*) \
		refuse "IMAGE_TAG=$$IMAGE_TAG is no tag; give letters, digits and _ . - with no . or - first" ;; esac; \
	case "$$IMAGE_BASE" in [!A-Za-z0-9]* | *[!A-Za-z0-9_.:/@-]*) \
		refuse "IMAGE_BASE=$$IMAGE_BASE is no image; give one such as python:3.13-slim-trixie" ;; esac; \
	case "$$PLATFORM" in linux/amd64 | linux/arm64) ;; *) \
		refuse "PLATFORM=$$PLATFORM is not supported; give linux/amd64 or linux/arm64" ;; esac

# $(call check_size,IMAGE): print its size, and fail above its budget.
define check_size
$(DOCKER) image inspect --format '{{.Size}}' "$(1):$$IMAGE_TAG" \
| awk -v name="$(1):$$IMAGE_TAG" -v budget=$(budget_gb_$(1)) \
	'{ printf "%-24s %.2f GB of %.1f GB\n", name, $$1 / 1e9, budget; over = $$1 + 0 > budget * 1e9 } \
	END { if (over) print "error: " name " is over its budget; see docker/slim.sh" > "/dev/stderr"; exit over || !NR }'
endef

# Docker reads only the build context, so the files are copied into it. The copy is completed before it replaces an
# earlier one, because DATA may be that earlier copy.
ifneq ($(DATA),)
IMAGE_DATA := build/mnist
.PHONY: $(IMAGE_DATA)
$(IMAGE_DATA): image-values
	@mkdir -p build && new=$$(mktemp -d build/mnist.XXXXXX) && trap 'rm -rf "$$new"' EXIT || exit; \
	for file in "$$DATA"/*ubyte "$$DATA"/*ubyte.gz; do \
		if [ -f "$$file" ]; then cp -- "$$file" "$$new" || exit; fi; \
	done; \
	[ -n "$$(ls "$$new")" ] \
		|| { printf 'error: DATA=%s holds no IDX files (*ubyte or *ubyte.gz)\n' "$$DATA" >&2; exit 2; }; \
	chmod -R u+rwX,go+rX "$$new" && rm -rf $@ && mv "$$new" $@
endif

$(foreach way,image oci reproduce publish,$(BUILT:%=$(way)-%)): $(IMAGE_DATA)

# $(call build_arguments,IMAGE): what every build of an image is given.
define build_arguments
--file docker/Dockerfile --target $(1) --platform "$$PLATFORM" \
		--build-arg "BASE=$$IMAGE_BASE" \
		--build-arg MNIST_FROM=$(if $(DATA),folder,download) \
		$(if $(MNIST_MIRRORS),--build-arg "MNIST_MIRRORS=$$MNIST_MIRRORS") \
		--build-arg VERSION=$(IMAGE_VERSION) \
		--build-arg GIT_SHA=$(IMAGE_GIT_SHA) \
		--build-arg "IMAGE_REF=$(1):$$IMAGE_TAG" $(BUILD_OPTIONS)
endef

$(ALL_BUILT:%=image-%): image-%: image-values
	DOCKER_BUILDKIT=1 $(DOCKER) build $(call build_arguments,$*) --tag "$*:$$IMAGE_TAG" --tag $*:latest .

builder:
	@$(DOCKER) buildx inspect $(BUILDER) > /dev/null 2>&1 \
		|| $(DOCKER) buildx create --name $(BUILDER) --driver docker-container --driver-opt image=$(BUILDKIT)

# $(call build_exactly,IMAGE,OUTPUT[,OPTIONS]): the build whose result depends on the commit and the base image only.
# Provenance is no part of the image, since it contains the time of the build: `make attest` and releases sign it.
define build_exactly
BUILDX_METADATA_PROVENANCE=max SOURCE_DATE_EPOCH=$(IMAGE_EPOCH) $(DOCKER) buildx build --builder $(BUILDER) \
		$(call build_arguments,$(1)) --build-arg SOURCE_DATE_EPOCH=$(IMAGE_EPOCH) \
		--provenance=false --sbom=false --output $(2),rewrite-timestamp=true,compression=$(COMPRESSION) $(3) .
endef

OCI = build/oci/$(1)-$(notdir $(PLATFORM))

oci: $(ALL_BUILT:%=oci-%) ## the images as a release publishes them, as OCI layouts in build/oci; needs docker buildx

$(ALL_BUILT:%=oci-%): oci-%: image-values builder
	@rm -rf "$(call OCI,$*)" && mkdir -p build/oci
	$(call build_exactly,$*,type=oci$(,)tar=false$(,)dest=$(call OCI,$*),--metadata-file "$(call OCI,$*).json")

reproduce: $(ALL_BUILT:%=reproduce-%) ## build each image twice, without a cache, and compare the digests; build/reproduce keeps them

DIGESTS = build/reproduce/$*-$(notdir $(PLATFORM)).txt

# All that the builder keeps is removed before each build, so the second one takes nothing from the first.
$(ALL_BUILT:%=reproduce-%): reproduce-%: image-values builder .venv/.synced
	@rm -rf build/reproduce/$* "$(DIGESTS)" && mkdir -p build/reproduce/$*
	for build in first second; do \
		$(DOCKER) buildx prune --builder $(BUILDER) --all --force > /dev/null || exit; \
		$(call build_exactly,$*,type=oci$(,)tar=false$(,)dest=build/reproduce/$*/$$build,--no-cache) || exit; \
	done
	@printf '%s, %s: ' $* "$$PLATFORM" > "$(DIGESTS)"
	.venv/bin/python scripts/compare_images.py build/reproduce/$*/first build/reproduce/$*/second >> "$(DIGESTS)"; \
		code=$$?; cat "$(DIGESTS)"; exit $$code
	@rm -rf build/reproduce/$*

test-attestations: oci-$(MERGE_IMAGE) .venv/.synced ## sign a built image with a throw-away key, verify it, and change it
	MNIST_JOBS_REQUIRE_LAYOUTS=$(MERGE_IMAGE)-$(notdir $(PLATFORM)) .venv/bin/python -m pytest tests/docker/test_attestations.py

attest: .venv/.synced $(ALL_BUILT:%=build/sbom/%.cdx.json) ## sign bill of materials and provenance of the images in build/oci with KEY
	@for image in $(ALL_BUILT); do \
		layout="build/oci/$$image-$${PLATFORM#linux/}"; \
		.venv/bin/python scripts/attest_image.py sign "$$layout" --key "$$KEY" \
			--sbom "build/sbom/$$image.cdx.json" --metadata "$$layout.json" || exit; \
	done

verify: .venv/.synced ## verify what make attest signed; KEY is the public key. Needs no network
	@for image in $(ALL_BUILT); do \
		.venv/bin/python scripts/attest_image.py verify "build/oci/$$image-$${PLATFORM#linux/}" --key "$$KEY" || exit; \
	done

sbom: $(ALL_IMAGES:%=build/sbom/%.cdx.json) ## write each image's bill of materials (CycloneDX) into build/sbom

build/sbom/%.cdx.json: docker/sbom.sh pyproject.toml uv.lock | $(filter .tools/bin/uv,$(UV))
	@mkdir -p $(@D)
	sh docker/sbom.sh $(UV) $(extra_$*) $@

test-images: images image-$(MERGE_IMAGE) .venv/.synced ## build the images and test them
	@$(call check_size,$(MERGE_IMAGE))
	MNIST_JOBS_REQUIRE_IMAGES=1 MNIST_JOBS_DOCKER="$(DOCKER)" MNIST_JOBS_IMAGE_TAG="$$IMAGE_TAG" \
		.venv/bin/python -m pytest tests/docker

registry: image-values
	@case "$$REGISTRY" in [!a-z0-9]* | *[!a-z0-9._:/-]* | '') \
		printf 'error: REGISTRY=%s is no registry; give one such as ghcr.io/owner\n' "$$REGISTRY" >&2; exit 2 ;; esac

push-images: registry ## push the images to REGISTRY and print their digests
	@for image in $(ALL_BUILT); do \
		$(DOCKER) tag "$$image:$$IMAGE_TAG" "$$REGISTRY/$$image:$$IMAGE_TAG" \
		&& $(DOCKER) push "$$REGISTRY/$$image:$$IMAGE_TAG" >&2 \
		&& digest=$$($(DOCKER) image inspect --format '{{index .RepoDigests 0}}' "$$REGISTRY/$$image:$$IMAGE_TAG") \
		&& echo "$$image=$${digest#*@}" || exit; \
	done

# For releases: the image as make oci builds it, under the tag with the processor's name, such as 1.2.3-arm64.
$(ALL_BUILT:%=publish-%): publish-%: image-values registry builder
	$(call build_exactly,$*,type=image$(,)push=true$(,)"name=$$REGISTRY/$*:$$IMAGE_TAG-$${PLATFORM#linux/}")

# The processors' images under one tag each. Docker takes the one for its own processor.
publish-indexes: registry ## join what make publish-IMAGE pushed for each processor, and print the digests
	@for image in $(ALL_IMAGES); do \
		case " $(AMD64_ONLY) " in *" $$image "*) arches=amd64 ;; *) arches="amd64 arm64" ;; esac; \
		name="$$REGISTRY/$$image:$$IMAGE_TAG"; \
		$(DOCKER) buildx imagetools create --tag "$$name" $$(printf "$$name-%s\n" $$arches) >&2 \
		&& digest=$$($(DOCKER) buildx imagetools inspect --format '{{.Manifest.Digest}}' "$$name") \
		&& echo "$$image=$$digest" || exit; \
	done

release-notes: ## write this version's changelog section to build/release/notes.md; checks TAG
	@[ "$${TAG:-v$(IMAGE_VERSION)}" = "v$(IMAGE_VERSION)" ] \
		|| { printf 'error: TAG=%s is not v%s, the version in jobs/__init__.py\n' "$$TAG" "$(IMAGE_VERSION)" >&2; exit 2; }
	@mkdir -p build/release
	@awk -v version="$(IMAGE_VERSION)" '/^## / { inside = $$2 == version && !/unreleased/; next } inside' CHANGELOG.md \
		> build/release/notes.md
	@grep -q . build/release/notes.md \
		|| { echo "error: CHANGELOG.md has no section '## $(IMAGE_VERSION) (DATE)'; name the day of the release there" >&2; exit 2; }
